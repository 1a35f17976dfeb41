"""The pictures that come out, and those that callers send in."""

import base64
import hashlib
import io
from datetime import timedelta

import pytest
from PIL import Image

from darkroom.imagestores.base import INPUT_IMAGE, INPUT_MASK
from darkroom.imagestores.memory import MemoryImageStore
from tests.api.stack import Stack, base64_picture, open_stack, picture_file


async def _finished(stack: Stack) -> str:
    job_id: str = (await stack.submit())["id"]
    await stack.begin(job_id)
    await stack.finish(job_id)
    return f"/v1/jobs/{job_id}/images"


async def test_a_picture_comes_as_png_that_may_be_kept(stack: Stack) -> None:
    answer = await stack.http.get(f"{await _finished(stack)}/0")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "image/png"
    assert answer.headers["cache-control"] == "private, max-age=31536000, immutable"
    assert answer.content == picture_file()


async def test_a_picture_seen_before_is_not_sent_again(stack: Stack) -> None:
    path = f"{await _finished(stack)}/0"
    tag = (await stack.http.get(path)).headers["etag"]
    answer = await stack.http.get(path, headers={"if-none-match": tag})
    assert answer.status_code == 304
    assert answer.headers["etag"] == tag


async def test_an_index_that_the_job_has_not_is_404(stack: Stack) -> None:
    answer = await stack.http.get(f"{await _finished(stack)}/1")
    assert answer.status_code == 404
    assert answer.json()["error"]["code"] == "ImageNotFound"


async def test_an_unfinished_job_is_409(stack: Stack) -> None:
    job = await stack.submit()
    answer = await stack.http.get(f"/v1/jobs/{job['id']}/images/0")
    assert answer.status_code == 409
    assert answer.json()["error"]["code"] == "JobNotFinished"


async def test_a_canceled_job_has_no_pictures(stack: Stack) -> None:
    job = await stack.submit()
    await stack.http.post(f"/v1/jobs/{job['id']}:cancel")
    answer = await stack.http.get(f"/v1/jobs/{job['id']}/images/0")
    assert answer.status_code == 404
    assert answer.json()["error"]["code"] == "ImageNotFound"


class _Linking(MemoryImageStore):
    async def link(self, job_id: str, name: str, lifetime: timedelta) -> str:
        return f"https://pictures.example/{job_id}/{name}?for={lifetime.seconds}"


async def test_a_store_that_makes_links_is_answered_with_one() -> None:
    async with open_stack(images=_Linking(), link_seconds=60) as stack:
        answer = await stack.http.get(f"{await _finished(stack)}/0")
    assert answer.status_code == 307
    assert answer.headers["location"].endswith("/0.png?for=60")
    assert answer.headers["cache-control"] == "no-store"


async def test_our_own_page_gets_bytes_since_it_may_load_nothing_from_elsewhere() -> None:
    async with open_stack(images=_Linking()) as stack:
        path = f"{await _finished(stack)}/0"
        answer = await stack.http.get(path, headers={"sec-fetch-site": "same-origin"})
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "image/png"


async def _input(stack: Stack, job_id: str, name: str = INPUT_IMAGE) -> Image.Image:
    return Image.open(io.BytesIO(await stack.state.images.get(job_id, name)))


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP"])
async def test_an_input_picture_is_kept_as_png_and_named_by_digest(stack: Stack, form: str) -> None:
    job = await stack.submit(image=base64_picture(96, 64, form))
    asked = job["input"]
    assert (asked["width"], asked["height"]) == (96, 64), "the output takes the picture's size"
    assert asked["strength"] == 0.8
    stored = await stack.state.images.get(job["id"], INPUT_IMAGE)
    assert asked["image"] == {
        "sha256": hashlib.sha256(stored).hexdigest(),
        "width": 96,
        "height": 64,
    }
    kept = await _input(stack, job["id"])
    assert (kept.format, kept.mode, kept.size) == ("PNG", "RGB", (96, 64))


@pytest.mark.parametrize(
    ("given", "asked", "expected"),
    [
        ((100, 70), {}, (96, 64)),
        ((1600, 800), {}, (512, 256)),
        ((20, 20), {}, (64, 64)),
        ((640, 320), {"width": 128}, (128, 64)),
        ((640, 320), {"height": 128}, (256, 128)),
        ((640, 320), {"width": 64, "height": 128}, (64, 128)),
    ],
)
async def test_the_worker_gets_the_picture_at_the_output_size(
    stack: Stack, given: tuple[int, int], asked: dict[str, int], expected: tuple[int, int]
) -> None:
    job = await stack.submit(image=base64_picture(*given), **asked)
    assert (job["input"]["width"], job["input"]["height"]) == expected
    assert (await _input(stack, job["id"])).size == expected


async def test_a_mask_makes_it_inpainting(stack: Stack) -> None:
    mask = base64_picture(64, 64, "PNG", 255, "L")
    job = await stack.submit(image=base64_picture(), mask_image=mask)
    assert job["input"]["mask_image"]["width"] == 64
    assert job["input"]["strength"] == 1.0
    assert (await _input(stack, job["id"], INPUT_MASK)).mode == "L"


async def test_transparent_parts_become_white(stack: Stack) -> None:
    clear = base64_picture(64, 64, "PNG", (0, 0, 0, 0), "RGBA")
    job = await stack.submit(image=clear)
    assert (await _input(stack, job["id"])).getpixel((5, 5)) == (255, 255, 255)


async def test_a_photos_place_is_not_kept(stack: Stack) -> None:
    out = io.BytesIO()
    photo = Image.new("RGB", (64, 64), "gray")
    exif = photo.getexif()
    exif[0x010E] = "taken at home"
    photo.save(out, "JPEG", exif=exif, comment=b"taken at home")
    job = await stack.submit(image=base64.b64encode(out.getvalue()).decode())
    assert b"taken at home" not in await stack.state.images.get(job["id"], INPUT_IMAGE)


async def test_a_photo_is_turned_as_its_camera_says(stack: Stack) -> None:
    out = io.BytesIO()
    photo = Image.new("RGB", (128, 64), "gray")
    exif = photo.getexif()
    exif[0x0112] = 6  # a quarter turn
    photo.save(out, "JPEG", exif=exif)
    job = await stack.submit(image=base64.b64encode(out.getvalue()).decode())
    assert (job["input"]["width"], job["input"]["height"]) == (64, 128)


async def test_a_data_url_is_base64_too(stack: Stack) -> None:
    job = await stack.submit(image="data:image/png;base64," + base64_picture())
    assert job["input"]["image"]["width"] == 64
