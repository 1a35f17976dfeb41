"""The contract that Darkroom's admission tier and GPU tier share: no web framework, no tensors."""

__version__ = "0.1.0"
