"""Server-Sent Events out of bytes, as they come (WHATWG HTML, section 9.2.6)."""

from collections.abc import Iterator
from dataclasses import dataclass

MAX_LINE_BYTES = 1024 * 1024


@dataclass(frozen=True)
class ServerEvent:
    """One event. ``id`` resumes the stream after it."""

    kind: str
    id: str
    data: str


class EventParser:
    """Takes chunks, gives the events that they complete."""

    def __init__(self) -> None:
        self._rest = b""
        self._fields: dict[str, list[str]] = {}

    def feed(self, chunk: bytes) -> Iterator[ServerEvent]:
        """Yield the events that end in ``chunk``. Raises `ValueError` for an endless line."""
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        if len(self._rest) > MAX_LINE_BYTES:
            raise ValueError(f"a line has more than {MAX_LINE_BYTES:,} bytes")
        for line in lines:
            event = self._line(line.removesuffix(b"\r").decode("utf-8", "replace"))
            if event is not None:
                yield event

    def _line(self, line: str) -> ServerEvent | None:
        if line:
            name, _, value = line.partition(":")
            self._fields.setdefault(name, []).append(value.removeprefix(" "))
            return None
        fields, self._fields = self._fields, {}
        if "data" not in fields:
            return None
        return ServerEvent(
            kind=fields.get("event", ["message"])[-1],
            id=fields.get("id", [""])[-1],
            data="\n".join(fields["data"]),
        )
