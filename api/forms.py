"""Forms (multipart/form-data, RFC 7578): the fields of a request as text, its pictures as files.

The whole body is in memory when it is parsed, so the body's limit bounds it; nothing is spooled to
a disk, which the container may not have.
"""

import base64
import json
from dataclasses import dataclass, field
from typing import Any

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from api.errors import InvalidForm
from darkroom.errors import InvalidInput

FORM_TYPE = "multipart/form-data"
MAX_PARTS = 64
PICTURES = frozenset({"image", "mask_image"})
_TEXTS = frozenset({"prompt", "negative_prompt", "model", "scheduler"})


@dataclass
class _Part:
    """One part: its headers as they come, then its bytes."""

    headers: dict[bytes, bytes] = field(default_factory=dict)
    data: bytearray = field(default_factory=bytearray)


def form_values(body: bytes, content_type: str) -> dict[str, Any]:
    """Return the values of a form, as its JSON would give them.

    Texts stay as they are; every other field is read as JSON (``128``, ``{"team": "red"}``). The
    bytes of ``image`` and ``mask_image`` become base64. Raises `InvalidForm`, and `InvalidInput`
    that names the field for one that stands twice, is a file and should not be, or is not UTF-8.
    """
    values: dict[str, Any] = {}
    for part in _parse(body, content_type):
        options = parse_options_header(part.headers.get(b"content-disposition", b""))[1]
        name = options.get(b"name", b"").decode("utf-8", "replace")
        if not name:
            raise InvalidForm("a part of the form has no name", target="body")
        if name in values:
            raise InvalidForm("a field stands twice in the form", target="body")
        if b"filename" in options and name in PICTURES:
            values[name] = base64.b64encode(part.data).decode()
        elif b"filename" in options:
            raise InvalidInput("only image and mask_image may be files", target="body")
        else:
            values[name] = _value(name, part.data)
    return values


def _value(name: str, data: bytes | bytearray) -> Any:
    try:
        text = data.decode()
    except UnicodeDecodeError:
        raise InvalidForm("a field of the form is not UTF-8", target="body") from None
    if name in _TEXTS or name in PICTURES:
        return text
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text  # the check of the field says what it should have been


def _parse(body: bytes, content_type: str) -> list[_Part]:
    boundary = parse_options_header(content_type)[1].get(b"boundary", b"")
    if not boundary:
        raise InvalidForm("the form's Content-Type has no boundary", target="Content-Type")
    collector = _Collector()
    try:
        parser = MultipartParser(boundary, collector.callbacks())
        parser.write(body)
        parser.finalize()
    except FormParserError:
        raise InvalidForm("the body is no multipart form (RFC 7578)", target="body") from None
    if not collector.is_whole:
        raise InvalidForm("the form ends before its last boundary", target="body")
    return collector.parts


class _Collector:
    """What the parser calls back."""

    def __init__(self) -> None:
        self.parts: list[_Part] = []
        self.is_whole = False
        self._header_name = bytearray()
        self._header_value = bytearray()

    def callbacks(self) -> Any:
        return {
            "on_part_begin": self._begin,
            "on_part_data": self._data,
            "on_header_field": self._name,
            "on_header_value": self._text,
            "on_header_end": self._header,
            "on_end": self._end,
        }

    def _begin(self) -> None:
        if len(self.parts) >= MAX_PARTS:
            raise InvalidForm(f"the form has more than {MAX_PARTS} fields", target="body")
        self.parts.append(_Part())

    def _data(self, data: bytes, start: int, end: int) -> None:
        self.parts[-1].data += data[start:end]

    def _name(self, data: bytes, start: int, end: int) -> None:
        self._header_name += data[start:end]

    def _text(self, data: bytes, start: int, end: int) -> None:
        self._header_value += data[start:end]

    def _header(self) -> None:
        self.parts[-1].headers[bytes(self._header_name).lower()] = bytes(self._header_value)
        self._header_name.clear()
        self._header_value.clear()

    def _end(self) -> None:
        self.is_whole = True
