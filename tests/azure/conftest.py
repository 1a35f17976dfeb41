from tests.azure.emulated import azurite, entra_azurite

__all__ = ["azurite", "entra_azurite"]
