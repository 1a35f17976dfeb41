"""Webhooks by Standard Webhooks: a process of its own that tells receivers how jobs ended."""
