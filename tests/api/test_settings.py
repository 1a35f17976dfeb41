"""Settings of the API that cannot work are refused by name."""

import socket

import pytest

from api.settings import ApiSettings
from api.wiring import listen
from darkroom.errors import SettingsError
from darkroom.settings import load


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.0.1", "::1", "localhost"])
def test_anonymous_callers_are_served_on_loopback(
    monkeypatch: pytest.MonkeyPatch, host: str
) -> None:
    monkeypatch.setenv("DARKROOM_API_HOST", host)
    assert load(ApiSettings).host == host


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.4", "gpu-box.lab", "localhost.evil"])
def test_anonymous_callers_from_elsewhere_need_a_switch(
    monkeypatch: pytest.MonkeyPatch, host: str
) -> None:
    monkeypatch.setenv("DARKROOM_API_HOST", host)
    with pytest.raises(SettingsError, match="DARKROOM_API_ALLOW_ANONYMOUS_REMOTE"):
        load(ApiSettings)
    monkeypatch.setenv("DARKROOM_API_ALLOW_ANONYMOUS_REMOTE", "true")
    assert load(ApiSettings).host == host


@pytest.mark.parametrize(
    ("name", "value"),
    [("PORT", "http"), ("PORT", "65536"), ("PUBLIC_URL", "pictures"), ("WATCH_SECONDS", "0")],
)
def test_a_value_out_of_its_limits_is_named(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(f"DARKROOM_API_{name}", value)
    with pytest.raises(SettingsError, match=f"DARKROOM_API_{name}"):
        load(ApiSettings)


def test_every_setting_is_described() -> None:
    assert all(field.description for field in ApiSettings.model_fields.values())


def test_a_port_that_is_taken_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(SettingsError, match=str(port)):
            listen(ApiSettings(port=port))
