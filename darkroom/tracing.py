"""W3C trace context across the queue: the submit's trace goes on in the worker.

Only the OpenTelemetry API is used: without a configured SDK every span is a no-op.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from opentelemetry import trace
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

_PROPAGATOR = TraceContextTextMapPropagator()
_TRACER = trace.get_tracer("darkroom")


def current_traceparent() -> str | None:
    """Return the ``traceparent`` of the current span, or None outside a trace."""
    carrier: dict[str, str] = {}
    _PROPAGATOR.inject(carrier)
    return carrier.get("traceparent")


def trace_id(traceparent: str | None) -> str | None:
    """Return the trace id (32 hex digits) of a ``traceparent``, or None."""
    parts = (traceparent or "").split("-")
    return parts[1] if len(parts) == 4 else None


@contextmanager
def span(
    name: str, traceparent: str | None = None, **attributes: str | int | float
) -> Iterator[None]:
    """Run the block in a span, a child of ``traceparent`` if given. Attributes hold no content.

    An error that passes is noted by its type alone: the words of a foreign one may quote a prompt.
    """
    context = _PROPAGATOR.extract({"traceparent": traceparent}) if traceparent else None
    with _TRACER.start_as_current_span(
        name,
        context=context,
        attributes=dict(attributes),
        record_exception=False,
        set_status_on_exception=False,
    ) as current:
        try:
            yield
        except Exception as error:  # every error marks the span, by its type alone
            current.set_status(trace.StatusCode.ERROR, type(error).__name__)
            raise
