"""The admission tier: HTTP in, records and messages out. No tensors here."""
