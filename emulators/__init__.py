"""Azure on one machine without containers: a Service Bus broker and a starter for Azurite."""
