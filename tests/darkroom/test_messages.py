"""What a queue carries survives the trip; what is none is refused."""

import json
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from darkroom.errors import UnsupportedMessage
from darkroom.generation import InputImage, Lora
from darkroom.messages import decode, message_for
from tests.samples import NOW, make_generation, make_job, make_message


def changed(**fields: Any) -> bytes:
    return json.dumps({**json.loads(make_message().encode()), **fields}).encode()


@given(
    st.floats(0, 1e6),
    st.integers(1, 200),
    st.lists(st.builds(Lora, name=st.just("ink"), weight=st.floats(-2, 2)), max_size=4),
    st.none() | st.timedeltas(timedelta(0), timedelta(days=1)),
)
def test_a_message_is_decoded_as_it_was_encoded(
    gpu_seconds: float, steps: int, loras: list[Lora], deadline: timedelta | None
) -> None:
    job = make_job(
        generation=make_generation(num_inference_steps=steps, loras=tuple(loras)),
        estimated_gpu_seconds=gpu_seconds,
        deadline_at=None if deadline is None else NOW + deadline,
    )
    message = message_for(job)
    assert decode(message.encode()) == message
    assert message_for(job) == message
    assert message.message_id == job.id


def test_a_message_never_holds_what_people_typed_or_drew() -> None:
    picture = InputImage(sha256="feed" * 16, width=64, height=64)
    job = make_job(
        generation=make_generation(prompt="my secret", negative_prompt="my other", image=picture),
        tags={"label": "mine"},
    )
    message = message_for(job)
    for word in (b"my secret", b"my other", b"feed", b"mine"):
        assert word not in message.encode()
        assert word.decode() not in str(message.properties)


def test_properties_are_what_operators_look_for() -> None:
    assert make_message().properties == {"model": "demo", "tenant": "acme", "pool": "short"}
    assert make_message(traceparent="00-1-2-01").properties["traceparent"] == "00-1-2-01"


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (b"", "body"),
        (b"not json", "body"),
        (b"\xff\xfe", "body"),
        (b"[]", "body"),
        (b"null", "body"),
        (b"{}", "job_id"),
        (changed(version=2), "version"),
        (changed(version="1"), "version"),
        (changed(width="wide"), "width"),
        (changed(created_at="yesterday"), "created_at"),
        (changed(gpu_seconds=None), "gpu_seconds"),
    ],
)
def test_a_body_that_cannot_be_read_is_refused_by_field(body: bytes, field: str) -> None:
    with pytest.raises(UnsupportedMessage) as refused:
        decode(body)
    assert refused.value.target == field
    assert refused.value.__cause__ is None, "the body must not travel along in the error"


@given(st.binary(max_size=200))
def test_no_bytes_break_the_reader(body: bytes) -> None:
    with pytest.raises(UnsupportedMessage):
        decode(body)


def test_a_field_of_a_later_release_is_borne() -> None:
    assert decode(changed(priority=3)).model == "demo"


def test_the_refusal_does_not_repeat_the_body() -> None:
    with pytest.raises(UnsupportedMessage) as refused:
        decode(changed(width="my secret"))
    assert "my secret" not in refused.value.message
