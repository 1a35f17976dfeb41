"""A setting that cannot work is refused by the name of its variable."""

from pathlib import Path

import pytest

from darkroom.errors import SettingsError
from darkroom.settings import DarkroomSettings, load


def test_nothing_needs_to_be_set() -> None:
    settings = load(DarkroomSettings)
    assert settings.queue_url == "sqlite:///data/queue.db"
    assert settings.lease_seconds >= 3 * settings.renew_seconds


def test_variables_are_read_by_their_documented_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DARKROOM_QUEUE_URL", "memory://")
    monkeypatch.setenv("DARKROOM_CATALOG", "some/catalog.yaml")
    monkeypatch.setenv("DARKROOM_REGION", "weu")
    settings = load(DarkroomSettings)
    assert settings.queue_url == "memory://"
    assert settings.catalog == Path("some/catalog.yaml")
    assert settings.region == "weu"


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("DARKROOM_REGION", "West Europe"),
        ("DARKROOM_REGION", "w-eu"),
        ("DARKROOM_LEASE_SECONDS", "0.5"),
        ("DARKROOM_LEASE_SECONDS", "301"),
        ("DARKROOM_LEASE_SECONDS", "soon"),
        ("DARKROOM_RENEW_SECONDS", "0"),
        ("DARKROOM_MAX_DELIVERY_COUNT", "0"),
        ("DARKROOM_MAX_DELIVERY_COUNT", "101"),
        ("DARKROOM_LOG_LEVEL", "loud"),
        ("DARKROOM_LOG_FORMAT", "xml"),
    ],
)
def test_a_value_out_of_its_limits_names_its_variable(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(SettingsError) as refused:
        load(DarkroomSettings)
    assert refused.value.target == variable
    assert variable in refused.value.message


def test_a_lease_shorter_than_three_renewals_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DARKROOM_LEASE_SECONDS", "59")
    with pytest.raises(SettingsError, match=r"lease_seconds \(59\) must be at least 3 x") as no:
        load(DarkroomSettings)
    assert (no.value.target or "").startswith("DARKROOM")


def test_a_lease_of_three_renewals_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DARKROOM_LEASE_SECONDS", "30")
    monkeypatch.setenv("DARKROOM_RENEW_SECONDS", "10")
    assert load(DarkroomSettings).renew_seconds == 10


def test_a_refusal_does_not_repeat_the_value(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DARKROOM_LOG_LEVEL", "AccountKey=hush")
    with pytest.raises(SettingsError) as refused:
        load(DarkroomSettings)
    assert "hush" not in refused.value.message
