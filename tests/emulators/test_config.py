import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emulators.service_bus.config import (
    FOREVER_MS,
    ConfigError,
    QueueSettings,
    check_queue_name,
    format_duration,
    load_config,
    parse_duration,
    queue_settings,
)
from emulators.service_bus.server import Options, check_host

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("text", "milliseconds"),
    [
        ("PT1M", 60_000),
        ("PT0.5S", 500),
        ("P1DT2H3M4.25S", 93_784_250),
        ("P14D", 14 * 86_400_000),
        ("P10675199DT2H48M5.4775807S", FOREVER_MS),
    ],
)
def test_durations_are_read_as_azure_writes_them(text: str, milliseconds: int) -> None:
    assert parse_duration(text) == milliseconds


@given(st.integers(0, FOREVER_MS))
def test_a_duration_survives_writing_and_reading(milliseconds: int) -> None:
    assert parse_duration(format_duration(milliseconds)) == milliseconds


@pytest.mark.parametrize("text", ["", "P", "PT", "1M", "P1M", "PT1", "P1Y", "PT-5S"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(ConfigError):
        parse_duration(text)


def test_the_shipped_config_is_readable() -> None:
    assert load_config(ROOT / "emulators" / "Config.json")


def test_a_config_in_microsofts_shape_gives_its_queues(tmp_path: Path) -> None:
    path = tmp_path / "Config.json"
    properties = {
        "DeadLetteringOnMessageExpiration": True,
        "DefaultMessageTimeToLive": "PT1H",
        "DuplicateDetectionHistoryTimeWindow": "PT20S",
        "ForwardDeadLetteredMessagesTo": "",
        "ForwardTo": "",
        "LockDuration": "PT30S",
        "MaxDeliveryCount": 3,
        "RequiresDuplicateDetection": True,
        "RequiresSession": False,
    }
    queues = [{"Name": "queue.1", "Properties": properties}, {"Name": "bare"}]
    path.write_text(json.dumps({"UserConfig": {"Namespaces": [{"Name": "n", "Queues": queues}]}}))
    assert load_config(path) == {
        "queue.1": QueueSettings(30_000, 3_600_000, True, 3, True, 20_000),
        "bare": QueueSettings(),
    }


@pytest.mark.parametrize(
    "document",
    [
        "no json",
        "[]",
        '{"UserConfig": {}}',
        '{"UserConfig": {"Namespaces": [{"Topics": [{"Name": "t"}]}]}}',
        '{"UserConfig": {"Namespaces": [{"Queues": [{"Name": "bad name"}]}]}}',
    ],
)
def test_a_config_of_another_shape_is_refused(document: str, tmp_path: Path) -> None:
    path = tmp_path / "Config.json"
    path.write_text(document)
    with pytest.raises(ConfigError):
        load_config(path)


@pytest.mark.parametrize(
    "wrong",
    [
        {"LockDuration": "PT4S"},
        {"LockDuration": "PT6M"},
        {"MaxDeliveryCount": 0},
        {"MaxDeliveryCount": "many"},
        {"RequiresSession": True},
        {"ForwardTo": "elsewhere"},
        {"RequiresDuplicateDetection": "perhaps"},
        {"DuplicateDetectionHistoryTimeWindow": "PT1S"},
        {"DefaultMessageTimeToLive": "PT0S"},
        {"LockDurations": "PT1M"},
    ],
)
def test_a_wrong_property_is_named(wrong: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        queue_settings(wrong)


@pytest.mark.parametrize("name", ["", "/a", "a//b", "a b", "a" * 300, "-a", "é"])
def test_a_name_that_azure_would_refuse_is_refused(name: str) -> None:
    with pytest.raises(ConfigError):
        check_queue_name(name)


def test_only_the_loopback_is_served_unless_told_otherwise() -> None:
    for host in ("127.0.0.1", "localhost", "::1"):
        check_host(Options(host=host))
    for host in ("0.0.0.0", "10.1.2.3", "example.org"):
        with pytest.raises(ConfigError, match="expose"):
            check_host(Options(host=host))
        check_host(Options(host=host, expose=True))
