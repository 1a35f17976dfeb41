"""Trace context crosses the queue as one short string."""

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
