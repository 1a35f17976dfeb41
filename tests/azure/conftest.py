from tests.azure.emulated import azurite

__all__ = ["azurite"]
