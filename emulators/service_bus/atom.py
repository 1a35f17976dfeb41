"""ATOM documents of the admin API: queue descriptions out and in.

Source: the schema order and namespaces as the Python SDK and KEDA's Go client read them.
"""

from datetime import UTC, datetime
from typing import Final
from xml.etree import ElementTree
from xml.sax.saxutils import escape

from emulators.service_bus.config import ConfigError, format_duration
from emulators.service_bus.queue import Counts, Queue

ATOM: Final = "http://www.w3.org/2005/Atom"
CONNECT: Final = "http://schemas.microsoft.com/netservices/2010/10/servicebus/connect"
COUNTS: Final = "http://schemas.microsoft.com/netservices/2011/06/servicebus"
DATES: Final = "0001-01-01T00:00:00"
"""When a queue was made is not kept; Go's client takes this zero time, or RFC 3339."""


def _elements(pairs: list[tuple[str, object]], prefix: str = "") -> str:
    return "".join(f"<{prefix}{name}>{_text(value)}</{prefix}{name}>" for name, value in pairs)


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else escape(str(value))


def _count_details(counts: Counts) -> str:
    inner = _elements(
        [
            ("ActiveMessageCount", counts.active),
            ("DeadLetterMessageCount", counts.dead_lettered),
            ("ScheduledMessageCount", counts.scheduled),
            ("TransferMessageCount", 0),
            ("TransferDeadLetterMessageCount", 0),
        ],
        "d:",
    )
    return f'<CountDetails xmlns:d="{COUNTS}">{inner}</CountDetails>'


def queue_description(queue: Queue) -> str:
    """A QueueDescription element, in the schema's order."""
    settings, counts = queue.settings, queue.counts()
    total = counts.active + counts.scheduled + counts.dead_lettered
    first = _elements(
        [
            ("LockDuration", format_duration(settings.lock_duration_ms)),
            ("MaxSizeInMegabytes", 1024),
            ("RequiresDuplicateDetection", settings.requires_duplicate_detection),
            ("RequiresSession", False),
            ("DefaultMessageTimeToLive", format_duration(settings.default_ttl_ms)),
            ("DeadLetteringOnMessageExpiration", settings.dead_letter_expired),
            (
                "DuplicateDetectionHistoryTimeWindow",
                format_duration(settings.duplicate_window_ms),
            ),
            ("MaxDeliveryCount", settings.max_delivery_count),
            ("EnableBatchedOperations", True),
            ("SizeInBytes", counts.size_bytes),
            ("MessageCount", total),
            ("IsAnonymousAccessible", False),
            ("Status", "Active"),
            ("CreatedAt", DATES),
            ("UpdatedAt", DATES),
            ("AccessedAt", DATES),
            ("SupportOrdering", True),
        ]
    )
    last = _elements(
        [
            ("AutoDeleteOnIdle", "P10675199DT2H48M5.4775807S"),
            ("EnablePartitioning", False),
            ("EntityAvailabilityStatus", "Available"),
            ("EnableExpress", False),
        ]
    )
    return (
        f'<QueueDescription xmlns="{CONNECT}" xmlns:i="http://www.w3.org/2001/XMLSchema-instance">'
        f"{first}{_count_details(counts)}{last}</QueueDescription>"
    )


def entry(url: str, title: str, content: str) -> str:
    """An ATOM entry around a description; the JS client reads the name out of the URL."""
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return (
        f'<entry xmlns="{ATOM}"><id>{escape(url)}</id><title type="text">{escape(title)}</title>'
        f"<published>{now}</published><updated>{now}</updated>"
        f'<content type="application/xml">{content}</content></entry>'
    )


def feed(url: str, title: str, entries: list[str]) -> str:
    """An ATOM feed."""
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return (
        f'<feed xmlns="{ATOM}"><title type="text">{escape(title)}</title>'
        f"<id>{escape(url)}</id><updated>{now}</updated>{''.join(entries)}</feed>"
    )


def namespace_info(name: str) -> str:
    """What `/$namespaceinfo` describes."""
    inner = _elements(
        [
            ("CreatedTime", "2026-01-01T00:00:00Z"),
            ("MessagingSKU", "Standard"),
            ("ModifiedTime", "2026-01-01T00:00:00Z"),
            ("Name", name),
            ("NamespaceType", "Messaging"),
        ]
    )
    return f'<NamespaceInfo xmlns="{CONNECT}">{inner}</NamespaceInfo>'


def error(status: int, text: str) -> str:
    """The body of a refusal."""
    return f"<Error><Code>{status}</Code><Detail>{escape(text)}</Detail></Error>"


def parse_queue_description(body: bytes) -> dict[str, str]:
    """The properties in the body of a PUT, as text by element name.

    Raises ConfigError when there is no QueueDescription in it (a topic, for one).
    """
    if b"<!" in body:
        raise ConfigError("a document type or comment has no place in this XML")
    try:
        root = ElementTree.fromstring(body)  # noqa: S314 -- no document type, checked above
    except ElementTree.ParseError as problem:
        raise ConfigError(f"the body is no XML: {problem}") from problem
    description = root.find(f".//{{{CONNECT}}}QueueDescription")
    if description is None:
        raise ConfigError("the body has no QueueDescription; this emulator has queues only")
    found = {}
    for child in description:
        name = child.tag.rpartition("}")[2]
        if len(child) == 0 and child.text and child.text.strip():
            found[name] = child.text.strip()
    return found
