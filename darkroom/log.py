"""Structured logs: one JSON object a line, with what ties a line to its job.

Nothing that people typed or drew is logged. `prompt_hash` gives a stand-in that lets two lines
about one prompt be matched without saying what it was. `_withhold` is the last guard: a field whose
name says it holds content or a secret is never written, whoever put it there.
"""

import hashlib
import logging
import sys
from collections.abc import MutableMapping
from typing import Any, cast

import structlog

WITHHELD = frozenset(
    {"prompt", "negative_prompt", "image", "mask_image", "authorization", "api_key", "token"}
    | {"sas", "secret", "password", "connection_string", "body", "input", "generation"}
)


def prompt_hash(prompt: str) -> str:
    """Return the first 16 hex digits of the prompt's SHA-256."""
    return hashlib.sha256(prompt.encode()).hexdigest()[:16]


def _withhold(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    for name in WITHHELD & event.keys():
        event[name] = "[withheld]"
    return event


def configure(level: str, form: str, component: str) -> None:
    """Send structlog and the standard library's logging to stderr.

    ``level`` is debug, info, warning or error; ``form`` json or console; ``component`` the name of
    the process (api, worker). The standard library's loggers stay at warning or above: SDKs print
    URLs and headers below that.
    """
    shared: list[structlog.types.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _withhold,
    ]
    last: structlog.types.Processor = (
        structlog.processors.JSONRenderer()
        if form == "json"
        else structlog.dev.ConsoleRenderer(colors=False)
    )
    threshold = getattr(logging, level.upper())
    structlog.configure(
        processors=[*shared, structlog.processors.format_exc_info, last],
        wrapper_class=structlog.make_filtering_bound_logger(threshold),
        logger_factory=structlog.WriteLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    structlog.contextvars.bind_contextvars(component=component)
    logging.basicConfig(stream=sys.stderr, level=max(threshold, logging.WARNING), force=True)


def get_logger() -> structlog.stdlib.BoundLogger:
    """Return a logger; call it with an event name in snake_case and fields."""
    return cast(structlog.stdlib.BoundLogger, structlog.get_logger())
