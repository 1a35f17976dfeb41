"""What cannot be had: each kind of bad input is a 4xx that names the field and the limit."""

import base64
import io
import json
import struct
import zlib
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from api.pictures import decode
from darkroom.errors import InvalidInput
from darkroom.generation import GenerationRequest
from tests.api.stack import PROMPT, Stack, base64_picture, open_stack, picture_file

PICTURE = base64_picture()
GIF = base64_picture(form="GIF")
TRUNCATED = base64.b64encode(picture_file(64, 64, "PNG", "red")[:-30]).decode()


def _header_bomb(side: int = 50_000) -> str:
    """A PNG of 60 bytes that says it is huge."""
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    chunks = b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in ((b"IHDR", header), (b"IDAT", zlib.compress(b"")), (b"IEND", b""))
    )
    return base64.b64encode(b"\x89PNG\r\n\x1a\n" + chunks).decode()


FIELDS: list[tuple[str, dict[str, Any], str, str]] = [
    ("a blank prompt", {"prompt": "  "}, "prompt", "blank"),
    ("an empty prompt", {"prompt": ""}, "prompt", "1"),
    ("no prompt", {"prompt": None}, "prompt", "string"),
    ("a prompt that is a number", {"prompt": 5}, "prompt", "string"),
    ("a prompt of 1 MB", {"prompt": "x" * 1_000_000}, "prompt", "2000"),
    ("a NUL byte", {"prompt": "a\x00b"}, "prompt", "NUL"),
    ("an escape character", {"negative_prompt": "\x1b[2J"}, "negative_prompt", "control"),
    ("a width as text", {"width": "128"}, "width", "64 to 2,048"),
    ("a width as a fraction", {"width": 128.5}, "width", "integer"),
    ("a width off the grid", {"width": 100}, "width", "multiple of 8"),
    ("a height that is too small", {"height": 8}, "height", "64"),
    ("a height that no model has", {"height": 4096}, "height", "2048"),
    ("a height that this model has not", {"height": 1024}, "height", "512"),
    ("too many pixels for the model", {"width": 512, "height": 512}, "width", "131,072"),
    ("no steps", {"num_inference_steps": 0}, "num_inference_steps", "1"),
    ("steps over every limit", {"num_inference_steps": 201}, "num_inference_steps", "200"),
    ("steps over the model's limit", {"num_inference_steps": 101}, "num_inference_steps", "100"),
    ("steps as a boolean", {"num_inference_steps": True}, "num_inference_steps", "integer"),
    ("guidance under its limit", {"guidance_scale": -0.1}, "guidance_scale", "0"),
    ("guidance over its limit", {"guidance_scale": 30.5}, "guidance_scale", "30"),
    ("guidance over the model's limit", {"guidance_scale": 21}, "guidance_scale", "20"),
    ("a float too big for a float", {"guidance_scale": 10**400}, "guidance_scale", "30"),
    ("no pictures", {"num_images": 0}, "num_images", "1"),
    ("too many pictures", {"num_images": 9}, "num_images", "8"),
    ("more pictures than the model gives", {"num_images": 5}, "num_images", "4"),
    ("a seed that is false", {"seed": False}, "seed", "integer"),
    ("a negative seed", {"seed": -1}, "seed", "0"),
    ("a seed of 2**32", {"seed": 2**32}, "seed", "4294967295"),
    ("a scheduler that is no name", {"scheduler": "__import__('os')"}, "scheduler", "pattern"),
    ("a scheduler not allowed", {"scheduler": "LCMScheduler"}, "scheduler", "DDIMScheduler"),
    ("a model that is no name", {"model": "../etc"}, "model", "pattern"),
    ("a LoRA that is unknown", {"loras": [{"name": "oil"}]}, "loras.0.name", "ink"),
    ("a LoRA twice", {"loras": [{"name": "ink"}] * 2}, "loras", "once"),
    ("too many LoRAs", {"loras": [{"name": "ink"}] * 5}, "loras", "4"),
    ("a LoRA's weight", {"loras": [{"name": "ink", "weight": 3}]}, "loras.0.weight", "2"),
    ("too many tags", {"tags": {str(i): "x" for i in range(17)}}, "tags", "16"),
    ("a tag that is too long", {"tags": {"team": "x" * 129}}, "tags", "128"),
    ("a tag with a NUL byte", {"tags": {"te\x00am": "x"}}, "tags", "NUL"),
    ("tags as a list", {"tags": ["a"]}, "tags", "16"),
    ("a deadline of no time", {"deadline_seconds": 0}, "deadline_seconds", "1"),
    ("a deadline after a day", {"deadline_seconds": 86_401}, "deadline_seconds", "86400"),
    ("an unknown field", {"steps": 20}, "steps", "num_inference_steps"),
    ("a URL to fetch", {"image": "https://10.0.0.1/x.png"}, "image", "base64"),
    ("bad base64", {"image": "@@@@"}, "image", "base64"),
    ("bytes that are no picture", {"image": "aGVsbG8="}, "image", "PNG"),
    ("a picture of another format", {"image": GIF}, "image", "PNG, JPEG or WebP"),
    ("a picture cut short", {"image": TRUNCATED}, "image", "whole"),
    ("a huge picture in few bytes", {"image": _header_bomb()}, "image", "4,194,304"),
    ("a picture just over the limit", {"image": _header_bomb(2049)}, "image", "4,194,304"),
    ("base64 over its limit", {"image": "A" * 14_000_004}, "image", "14000000"),
    ("a mask without a picture", {"mask_image": PICTURE}, "mask_image", "needs image"),
    ("a strength without a picture", {"strength": 0.5}, "strength", "needs image"),
    ("no strength", {"image": PICTURE, "strength": 0}, "strength", "0"),
    ("too much strength", {"image": PICTURE, "strength": 1.01}, "strength", "1"),
    (
        "a mask of another size",
        {"image": PICTURE, "mask_image": base64_picture(128, 64)},
        "mask_image",
        "64 x 64",
    ),
    (
        "a picture for a model of words",
        {"image": PICTURE, "model": "words-only"},
        "image",
        "text_to_image",
    ),
]


@pytest.mark.parametrize(
    ("fields", "target", "limit"),
    [case[1:] for case in FIELDS],
    ids=[case[0].replace(" ", "_") for case in FIELDS],
)
async def test_a_field_out_of_its_limits_is_400(
    stack: Stack, fields: dict[str, Any], target: str, limit: str
) -> None:
    answer = await stack.http.post("/v1/jobs", json={"prompt": PROMPT, **fields})
    _assert_refused(answer, 400, "InvalidParameter", target, limit)
    assert await stack.messages() == []
    assert not (await stack.http.get("/v1/jobs")).json()["value"]


async def test_an_unknown_model_is_400_and_the_known_are_named(stack: Stack) -> None:
    answer = await stack.http.post("/v1/jobs", json={"prompt": PROMPT, "model": "none-such"})
    _assert_refused(answer, 400, "UnknownModel", "model", "demo, words-only")


async def test_a_job_that_is_too_long_for_every_pool_is_400(stack: Stack) -> None:
    fields = {"width": 512, "height": 256, "num_inference_steps": 100, "num_images": 4}
    answer = await stack.http.post("/v1/jobs", json={"prompt": PROMPT, **fields})
    _assert_refused(answer, 400, "NoPoolForJob", "num_inference_steps", "20")


BODIES: list[tuple[str, bytes, str]] = [
    ("nothing", b"", "JSON"),
    ("half a document", b'{"prompt": "x"', "JSON"),
    ("two documents", b'{"prompt": "x"}{}', "JSON"),
    ("a name twice", b'{"prompt": "x", "prompt": "y"}', "twice"),
    ("NaN", b'{"prompt": "x", "guidance_scale": NaN}', "NaN"),
    ("Infinity", b'{"prompt": "x", "guidance_scale": -Infinity}', "Infinity"),
    ("a lone surrogate", b'{"prompt": "\\ud800"}', "Unicode"),
    ("bytes that are not UTF-8", b'{"prompt": "\xff"}', "UTF-8"),
    ("UTF-16", '{"prompt": "x"}'.encode("utf-16"), "UTF-8"),
    ("100,000 brackets", b"[" * 100_000, "JSON"),
    ("a comment", b'{"prompt": "x"} // hi', "JSON"),
    ("a number of 5,000 digits", b'{"prompt": "x", "seed": ' + b"9" * 5_000 + b"}", "JSON"),
]


@pytest.mark.parametrize(
    ("body", "limit"), [case[1:] for case in BODIES], ids=[case[0] for case in BODIES]
)
async def test_a_body_that_is_not_json_is_400(stack: Stack, body: bytes, limit: str) -> None:
    answer = await stack.http.post(
        "/v1/jobs", content=body, headers={"content-type": "application/json"}
    )
    _assert_refused(answer, 400, "InvalidJson", "body", limit)


@pytest.mark.parametrize("body", ["[]", '"x"', "null", "7"])
async def test_json_that_is_no_object_is_400(stack: Stack, body: str) -> None:
    answer = await stack.http.post(
        "/v1/jobs", content=body, headers={"content-type": "application/json"}
    )
    _assert_refused(answer, 400, "InvalidParameter", "body", "object")


@pytest.mark.parametrize(
    "content_type", ["text/plain", "", "application/x-www-form-urlencoded", "multipart/mixed"]
)
async def test_another_media_type_is_415(stack: Stack, content_type: str) -> None:
    answer = await stack.http.post(
        "/v1/jobs", content=b'{"prompt":"x"}', headers={"content-type": content_type}
    )
    _assert_refused(answer, 415, "UnsupportedMediaType", "Content-Type", "application/json")


async def test_a_body_over_the_limit_is_413_although_no_length_was_announced() -> None:
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        while sent < 10_000_000:
            sent += 65_536
            yield b" " * 65_536

    async with open_stack(max_body_bytes=1_000_000) as stack:
        answer = await stack.http.post(
            "/v1/jobs", content=endless(), headers={"content-type": "application/json"}
        )
    _assert_refused(answer, 413, "RequestTooLarge", "body", "1,000,000")
    assert answer.request.headers.get("content-length") is None


async def test_an_announced_length_over_the_limit_is_413_before_a_byte_is_read() -> None:
    async with open_stack(max_body_bytes=65_536) as stack:
        answer = await stack.http.post("/v1/jobs", json={"prompt": "x" * 70_000})
    _assert_refused(answer, 413, "RequestTooLarge", "body", "65,536")


@pytest.mark.parametrize("key", ["", '""', "x" * 256, '"open', "caf\xe9", "a\tb"])
async def test_an_idempotency_key_out_of_its_limits_is_400(stack: Stack, key: str) -> None:
    headers = [(b"idempotency-key", key.encode("latin-1"))]
    answer = await stack.http.post("/v1/jobs", json={"prompt": PROMPT}, headers=headers)
    _assert_refused(answer, 400, "InvalidParameter", "Idempotency-Key", "1 to 255")


@pytest.mark.parametrize(
    ("path", "target", "limit"),
    [
        ("/v1/jobs?limit=0", "limit", "1"),
        ("/v1/jobs?limit=101", "limit", "100"),
        ("/v1/jobs?limit=ten", "limit", "integer"),
        ("/v1/jobs?cursor=%00", "cursor", "cursor"),
        ("/v1/jobs?cursor=bm90IG9uZQ==", "cursor", "cursor"),
        ("/v1/jobs?cursor=" + "A" * 513, "cursor", "512"),
        ("/v1/jobs?status=Done", "status", "Succeeded"),
        ("/v1/jobs?created_after=yesterday", "created_after", "datetime"),
        ("/v1/jobs?created_after=2026-01-01T00:00:00", "created_after", "timezone"),
        ("/v1/jobs?tag=team", "tag", "name:value"),
        ("/v1/jobs/{id}?wait=61", "wait", "60"),
        ("/v1/jobs/{id}?wait=-1", "wait", "0"),
        ("/v1/jobs/{id}?wait=long", "wait", "integer"),
        ("/v1/jobs/{id}/images/8", "index", "8"),
        ("/v1/jobs/{id}/images/first", "index", "integer"),
    ],
)
async def test_a_parameter_out_of_its_limits_is_400(
    stack: Stack, path: str, target: str, limit: str
) -> None:
    job = await stack.submit()
    answer = await stack.http.get(path.format(id=job["id"]))
    _assert_refused(answer, 400, "InvalidParameter", target, limit)


async def test_several_faults_are_told_at_once(stack: Stack) -> None:
    answer = await stack.http.post("/v1/jobs", json={"width": 100, "seed": -1, "steps": 3})
    error = answer.json()["error"]
    assert {one["target"] for one in error["details"]} == {"prompt", "width", "seed", "steps"}
    assert error["target"] == error["details"][0]["target"]
    assert "3 more" in error["message"]


SECRET = "my-own-words"


@pytest.mark.parametrize(
    "fields",
    [
        {"prompt": SECRET + "\x00"},
        {"prompt": SECRET * 1_000},
        {"seed": SECRET},
        {"scheduler": SECRET + "!"},
        {"model": "my-own-words"},
        {"image": SECRET},
        {"tags": {SECRET + "\x00": "x"}},
        {"tags": {SECRET: 5}},
        {"loras": [{"name": SECRET}]},
        {SECRET + " with blanks": 1},
    ],
)
async def test_what_was_sent_is_not_repeated(stack: Stack, fields: dict[str, Any]) -> None:
    answer = await stack.http.post("/v1/jobs", json={"prompt": PROMPT, **fields})
    assert answer.status_code == 400
    assert SECRET not in answer.text


_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
_names = st.sampled_from([*GenerationRequest.model_fields, "steps"]) | st.text()


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(body=st.dictionaries(_names, _values, max_size=4))
async def test_no_body_whatever_gets_500(stack: Stack, body: dict[str, Any]) -> None:
    answer = await stack.http.post(
        "/v1/jobs", content=json.dumps(body), headers={"content-type": "application/json"}
    )
    assert answer.status_code in (202, 400)


@settings(max_examples=150)
@given(data=st.data())
def test_no_damage_to_a_picture_escapes_the_decoder(data: st.DataObject) -> None:
    form = data.draw(st.sampled_from(["PNG", "JPEG", "WEBP"]))
    damaged = bytearray(picture_file(24, 24, form, "teal"))
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(damaged)))
    try:
        picture = decode(base64.b64encode(bytes(damaged[:cut])).decode(), "image")
    except InvalidInput:
        pass  # the only way to refuse
    else:
        picture.save(io.BytesIO(), "PNG")
        assert isinstance(picture, Image.Image)


def _assert_refused(
    answer: httpx.Response, status: int, code: str, target: str, limit: str
) -> None:
    assert answer.status_code == status, answer.text[:300]
    error = answer.json()["error"]
    assert error["code"] == code == answer.headers["x-ms-error-code"]
    assert error["target"] == target
    assert limit in error["message"]
    assert target in error["message"] or code in ("InvalidJson", "NoPoolForJob") or status != 400
