"""What every test starts from; fixtures live in the folders that need them."""

import os

import pytest
from hypothesis import settings

settings.register_profile("darkroom", deadline=None, max_examples=50, derandomize=True)
settings.load_profile("darkroom")


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """A developer's own DARKROOM_ variables must not decide whether a test passes."""
    ours = ("DARKROOM_", "SERVICEBUS_", "AZURE_STORAGE_")
    for name in [name for name in os.environ if name.startswith(ours)]:  # noqa: TID251
        monkeypatch.delenv(name)
