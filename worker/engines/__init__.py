"""The Engine port and its adapters."""
