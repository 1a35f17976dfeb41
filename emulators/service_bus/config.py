"""A queue's settings, and the configuration file in the shape of Microsoft's emulator.

Defaults and names are those of Azure's QueueDescription; durations are ISO 8601.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Final

DAY_MS: Final = 86_400_000
FOREVER_MS: Final = 922_337_203_685_477
"""The longest .NET TimeSpan, P10675199DT2H48M5.477S: Azure's word for no limit."""

MAX_LOCK_MS: Final = 300_000
_DURATION: Final = re.compile(
    r"P(?:(\d+)D)?(?:T(?:(\d+)H)?(?:(\d+)M)?(?:(\d+)(?:\.(\d+))?S)?)?", re.ASCII
)
_QUEUE_NAME: Final = re.compile(r"[A-Za-z0-9](?:[\w./-]{0,258}[A-Za-z0-9_-])?", re.ASCII)


class ConfigError(ValueError):
    """A setting is wrong; the message names it and its limit."""


@dataclass(frozen=True, slots=True)
class QueueSettings:
    """What a queue promises; times in milliseconds. `max_delivery_count` of 0 has no limit."""

    lock_duration_ms: int = 60_000
    default_ttl_ms: int = FOREVER_MS
    dead_letter_expired: bool = False
    max_delivery_count: int = 10
    requires_duplicate_detection: bool = False
    duplicate_window_ms: int = 600_000


_PROPERTIES: Final[dict[str, str]] = {
    "LockDuration": "lock_duration_ms",
    "DefaultMessageTimeToLive": "default_ttl_ms",
    "DeadLetteringOnMessageExpiration": "dead_letter_expired",
    "MaxDeliveryCount": "max_delivery_count",
    "RequiresDuplicateDetection": "requires_duplicate_detection",
    "DuplicateDetectionHistoryTimeWindow": "duplicate_window_ms",
}
_REFUSED: Final = ("RequiresSession", "ForwardTo", "ForwardDeadLetteredMessagesTo")
_IGNORED: Final = frozenset(
    {
        "MaxSizeInMegabytes", "EnableBatchedOperations", "SizeInBytes", "MessageCount",
        "IsAnonymousAccessible", "AuthorizationRules", "Status", "CreatedAt", "UpdatedAt",
        "AccessedAt", "SupportOrdering", "CountDetails", "AutoDeleteOnIdle", "EnablePartitioning",
        "EntityAvailabilityStatus", "EnableExpress", "UserMetadata", "MaxMessageSizeInKilobytes",
    }
)  # fmt: skip


def parse_duration(text: str) -> int:
    """An ISO 8601 duration of days, hours, minutes, seconds, in milliseconds.

    Raises ConfigError for anything else (months have no fixed length).
    """
    match = _DURATION.fullmatch(text)
    if match is None or text in ("P", "PT"):
        raise ConfigError(f"{text!r} is not a duration like PT1M or P14D")
    days, hours, minutes, seconds = (int(group or 0) for group in match.groups()[:4])
    fraction_ms = int((match.group(5) or "").ljust(3, "0")[:3])
    whole = ((days * 24 + hours) * 60 + minutes) * 60 + seconds
    return min(whole * 1000 + fraction_ms, FOREVER_MS)


def format_duration(milliseconds: int) -> str:
    """The ISO 8601 form that Azure writes."""
    if milliseconds >= FOREVER_MS:
        return "P10675199DT2H48M5.4775807S"
    days, rest = divmod(milliseconds, DAY_MS)
    hours, rest = divmod(rest, 3_600_000)
    minutes, rest = divmod(rest, 60_000)
    seconds, millis = divmod(rest, 1000)
    date = f"{days}D" if days else ""
    time = (f"{hours}H" if hours else "") + (f"{minutes}M" if minutes else "")
    if seconds or millis:
        time += f"{seconds}.{millis:03d}S" if millis else f"{seconds}S"
    return f"P{date}T{time}" if time else f"P{date}" if date else "PT0S"


def queue_settings(properties: Mapping[str, object]) -> QueueSettings:
    """Settings from a queue's properties, as JSON values or as the text of ATOM elements.

    Raises ConfigError for an unknown property, a value out of range, or a feature that this
    emulator does not have (sessions, forwarding).
    """
    for name in _REFUSED:
        if str(properties.get(name) or "").lower() not in ("", "false"):
            raise ConfigError(f"{name}: this emulator has no sessions and no forwarding")
    kinds = {item.name: item.type for item in fields(QueueSettings)}
    values: dict[str, int | bool] = {}
    for name, value in properties.items():
        if name in _REFUSED or name in _IGNORED:
            continue
        attribute = _PROPERTIES.get(name)
        if attribute is None:
            raise ConfigError(f"{name} is not a queue property")
        values[attribute] = _read(name, str(value), attribute, kinds[attribute])
    return _checked(QueueSettings(**values))  # type: ignore[arg-type]


def _read(name: str, text: str, attribute: str, kind: object) -> int | bool:
    if attribute.endswith("_ms"):
        return parse_duration(text)
    if kind is bool:
        if text.lower() not in ("true", "false"):
            raise ConfigError(f"{name} must be true or false")
        return text.lower() == "true"
    if not text.isdigit():
        raise ConfigError(f"{name} must be a whole number")
    return int(text)


def _checked(settings: QueueSettings) -> QueueSettings:
    if not 5_000 <= settings.lock_duration_ms <= MAX_LOCK_MS:
        raise ConfigError("LockDuration must be from PT5S to PT5M")
    if not 1 <= settings.max_delivery_count <= 2000:
        raise ConfigError("MaxDeliveryCount must be from 1 to 2000")
    if settings.default_ttl_ms < 1000:
        raise ConfigError("DefaultMessageTimeToLive must be at least PT1S")
    if not 20_000 <= settings.duplicate_window_ms <= 7 * DAY_MS:
        raise ConfigError("DuplicateDetectionHistoryTimeWindow must be from PT20S to P7D")
    return settings


def check_queue_name(name: str) -> str:
    """The name, if Azure would have it; raises ConfigError otherwise."""
    if not _QUEUE_NAME.fullmatch(name) or "//" in name:
        raise ConfigError(
            "a queue name has 1 to 260 letters, digits, '.', '-', '_', '/' and starts with a "
            f"letter or digit; got {name!r}"
        )
    return name


def load_config(path: Path) -> dict[str, QueueSettings]:
    """The queues of a configuration file.

    Raises ConfigError when the file is not that shape, or asks for topics, sessions or forwarding.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        queues: dict[str, QueueSettings] = {}
        for namespace in document["UserConfig"]["Namespaces"]:
            if namespace.get("Topics"):
                raise ConfigError("Topics: this emulator has queues only")
            for queue in namespace.get("Queues") or []:
                name = check_queue_name(queue["Name"])
                queues[name] = queue_settings(queue.get("Properties") or {})
    except (KeyError, TypeError, AttributeError, json.JSONDecodeError) as error:
        raise ConfigError(
            f"{path.name} is not a Config.json with UserConfig.Namespaces[].Queues[]: {error!r}"
        ) from error
    return queues
