"""Trace context crosses the queue as one short string."""

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from darkroom import tracing
from darkroom.tracing import current_traceparent, span, trace_id

PARENT = "00-" + "a" * 32 + "-" + "b" * 16 + "-01"


def test_outside_a_trace_there_is_nothing_to_pass_on() -> None:
    assert current_traceparent() is None
    assert trace_id(None) is None
    assert trace_id("nonsense") is None


def test_a_span_goes_on_with_the_trace_that_was_passed() -> None:
    with span("generate", PARENT, model="demo"):
        assert trace_id(current_traceparent()) == "a" * 32
    assert current_traceparent() is None


def test_a_span_tells_the_kind_of_an_error_and_not_its_words(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(tracing, "_TRACER", provider.get_tracer("test"))
    with pytest.raises(ValueError), span("generate"):
        raise ValueError("cannot draw a lighthouse")
    [ended] = exporter.get_finished_spans()
    assert not ended.status.is_ok
    assert "ValueError" in ended.to_json()
    assert "lighthouse" not in ended.to_json()
