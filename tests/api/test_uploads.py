"""Pictures as files of a form: the same request, the same limits, the same refusals."""

from typing import Any

import pytest

from darkroom.imagestores.base import INPUT_IMAGE, INPUT_MASK
from tests.api.stack import PROMPT, Stack, base64_picture, open_stack, picture_file

PICTURE = picture_file(64, 96, color="teal")
FILES = {"image": ("photo.png", PICTURE, "image/png")}


async def test_a_form_is_the_same_request_as_its_json(stack: Stack) -> None:
    fields = {
        "prompt": PROMPT,
        "negative_prompt": "12",
        "num_inference_steps": "3",
        "guidance_scale": "2.5",
        "seed": "7",
        "strength": "0.5",
        "tags": '{"team": "red"}',
        "loras": '[{"name": "ink", "weight": 0.5}]',
    }
    mask = picture_file(64, 96, color="white")
    files = {**FILES, "mask_image": ("mask.webp", mask, "application/octet-stream")}
    key = {"idempotency-key": "same"}
    sent = await stack.http.post("/v1/jobs", data=fields, files=files, headers=key)
    assert sent.status_code == 202, sent.text
    shown = sent.json()
    assert shown["input"]["image"]["width"] == 64
    assert shown["input"]["negative_prompt"] == "12"
    assert shown["tags"] == {"team": "red"}
    as_json = {
        "prompt": PROMPT,
        "negative_prompt": "12",
        "num_inference_steps": 3,
        "guidance_scale": 2.5,
        "seed": 7,
        "strength": 0.5,
        "tags": {"team": "red"},
        "loras": [{"name": "ink", "weight": 0.5}],
        "image": base64_picture(64, 96, color="teal"),
        "mask_image": base64_picture(64, 96, color="white"),
    }
    again = await stack.http.post("/v1/jobs", json=as_json, headers=key)
    assert again.json()["id"] == shown["id"], "the key knows it as the same request"
    for name in (INPUT_IMAGE, INPUT_MASK):
        assert (await stack.state.images.get(shown["id"], name)).startswith(b"\x89PNG")


async def test_a_form_without_a_file_is_a_request_too(stack: Stack) -> None:
    parts = {"prompt": (None, PROMPT), "seed": (None, "5")}
    sent = await stack.http.post("/v1/jobs", files=parts)
    assert sent.json()["input"]["seed"] == 5


@pytest.mark.parametrize(
    ("fields", "code", "target"),
    [
        ({"width": "100"}, "InvalidParameter", "width"),
        ({"width": "wide"}, "InvalidParameter", "width"),
        ({"width": "64.0"}, "InvalidParameter", "width"),
        ({"seed": "true"}, "InvalidParameter", "seed"),
        ({"guidance_scale": "NaN"}, "InvalidParameter", "guidance_scale"),
        ({"tags": "red"}, "InvalidParameter", "tags"),
        ({"loras": "[{}]"}, "InvalidParameter", "loras.0.name"),
        ({"steps": "5"}, "InvalidParameter", "steps"),
        ({"prompt": " "}, "InvalidParameter", "prompt"),
        ({"model": "nothing"}, "UnknownModel", "model"),
        ({"image": "https://example.org/cat.png"}, "InvalidParameter", "image"),
    ],
)
async def test_a_form_is_refused_like_its_json(
    stack: Stack, fields: dict[str, str], code: str, target: str
) -> None:
    parts = {name: (None, value) for name, value in {"prompt": PROMPT, **fields}.items()}
    answer = await stack.http.post("/v1/jobs", files=parts)
    assert answer.status_code == 400, answer.text
    assert answer.json()["error"]["code"] == code
    assert answer.json()["error"]["target"] == target


@pytest.mark.parametrize("files", ["broken", "a gif", "empty"])
async def test_a_file_that_is_no_picture_is_refused(stack: Stack, files: str) -> None:
    data = {"broken": PICTURE[:-30], "a gif": picture_file(form="GIF"), "empty": b""}[files]
    answer = await stack.http.post(
        "/v1/jobs", data={"prompt": PROMPT}, files={"image": ("a.png", data)}
    )
    assert answer.status_code == 400
    assert answer.json()["error"]["target"] == "image"


def _form(*parts: bytes, end: bytes = b"--b--\r\n") -> bytes:
    return b"".join(b"--b\r\n" + part + b"\r\n" for part in parts) + end


def _part(name: bytes, value: bytes, more: bytes = b"") -> bytes:
    return b'Content-Disposition: form-data; name="' + name + b'"' + more + b"\r\n\r\n" + value


PART = _part(b"prompt", b"x")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"no form at all",
        _form(PART, end=b""),
        _form(PART)[:-8],
        _form(PART, PART),
        _form(b"Content-Type: text/plain\r\n\r\nx"),
        _form(_part(b"prompt", b"\xff\xfe")),
        _form(*[_part(b"f%d" % number, b"x") for number in range(100)]),
    ],
    ids=["empty", "text", "no end", "cut", "twice", "no name", "no UTF-8", "a hundred"],
)
async def test_what_is_no_form_is_refused(stack: Stack, body: bytes) -> None:
    headers = {"content-type": "multipart/form-data; boundary=b"}
    answer = await stack.http.post("/v1/jobs", content=body, headers=headers)
    assert answer.status_code == 400, answer.text
    assert answer.json()["error"]["code"] == "InvalidForm"


@pytest.mark.parametrize("parameter", ["", "; boundary=", "; boundary=" + "b" * 500])
async def test_a_form_needs_a_boundary(stack: Stack, parameter: str) -> None:
    headers = {"content-type": f"multipart/form-data{parameter}"}
    answer = await stack.http.post("/v1/jobs", content=_form(PART), headers=headers)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "InvalidForm")


async def test_only_pictures_may_be_files(stack: Stack) -> None:
    answer = await stack.http.post("/v1/jobs", files={"prompt": ("a.txt", b"a lighthouse")})
    assert answer.status_code == 400
    assert "image and mask_image" in answer.json()["error"]["message"]


async def test_a_form_has_the_limit_of_every_body() -> None:
    async with open_stack(max_body_bytes=64 * 1024) as stack:
        files: Any = {"image": ("big.png", bytes(65 * 1024), "image/png")}
        answer = await stack.http.post("/v1/jobs", data={"prompt": PROMPT}, files=files)
        assert (answer.status_code, answer.json()["error"]["code"]) == (413, "RequestTooLarge")


@pytest.mark.parametrize(
    "address",
    ["http://127.0.0.1:1/a.png", "https://example.org/a.png", "file:///etc/passwd", "s3://b/k"],
)
async def test_an_address_is_never_fetched(stack: Stack, address: str) -> None:
    answer = await stack.http.post("/v1/jobs", json={"prompt": PROMPT, "image": address})
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert error["target"] == "image"
    assert "never fetched" in error["message"]
    assert address not in error["message"]
