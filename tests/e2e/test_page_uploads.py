"""Starting from a picture: chosen or dropped, checked at the field, sent with its strength."""

import io
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image
from playwright.sync_api import expect

from tests.e2e.asking import ask, await_state
from tests.e2e.browser import Visit

Choose = Callable[..., None]
# Drops a file; `bytes` are a list of them, or how many zeros.
DROP = """([zone, bytes, name, type]) => {
  const transfer = new DataTransfer();
  transfer.items.add(new File([new Uint8Array(bytes)], name, { type }));
  const event = { dataTransfer: transfer, bubbles: true, cancelable: true };
  document.querySelector(zone).dispatchEvent(new DragEvent("drop", event));
}"""


def picture(width: int = 96, height: int = 64, kind: str = "PNG") -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (width, height), "teal").save(out, kind)
    return out.getvalue()


@pytest.fixture
def choose(seen: Visit, tmp_path: Path) -> Choose:
    """Choose a file of that content and name as the picture to start from."""

    def chosen(data: bytes, name: str = "start.png", field: str = "image") -> None:
        (tmp_path / name).write_bytes(data)
        seen.page.locator("#from-picture").evaluate("part => { part.open = true; }")
        seen.page.set_input_files(f"#{field}", tmp_path / name)

    return chosen


def test_a_picture_is_shown_sent_and_gives_its_shape(seen: Visit, choose: Choose) -> None:
    page = seen.page
    choose(picture(160, 96))
    expect(page.locator("#image-name")).to_have_text("start.png, 160 \u00d7 96")
    expect(page.locator("#image-preview")).to_have_js_property("naturalWidth", 160)
    expect(page.locator("#width")).to_have_value("")
    page.get_by_label("Strength").press("ArrowLeft")
    expect(page.locator("#strength-value")).to_have_text("0.75")
    ask(page, "a start", num_inference_steps=2)
    await_state(page, "Done")
    facts = page.locator("#facts")
    expect(facts).to_contain_text("Started fromA picture of 160 \u00d7 96")
    expect(facts).to_contain_text("Strength0.75")
    expect(page.locator("#tray img")).to_have_js_property("naturalWidth", 160)


def test_a_dropped_picture_counts_and_can_be_removed(seen: Visit) -> None:
    page = seen.page
    page.locator("#from-picture").evaluate("part => { part.open = true; }")
    page.evaluate(DROP, ["#image-drop", list(picture(kind="WEBP")), "dropped.webp", "image/webp"])
    expect(page.locator("#image-name")).to_have_text("dropped.webp, 96 \u00d7 64")
    page.get_by_role("button", name="Remove the picture").click()
    expect(page.locator("#image-preview")).to_be_hidden()
    expect(page.locator("#strength-field")).to_be_hidden()
    expect(page.locator("#width")).to_have_value("128")
    expect(page.locator("#image")).to_be_focused()


@pytest.mark.parametrize(
    ("data", "name", "words"),
    [
        (b"GIF89a", "moving.gif", "PNG, JPEG or WebP"),
        (b"<svg/>", "drawn.svg", "PNG, JPEG or WebP"),
        (b"no picture at all", "liar.png", "cannot be read"),
        (picture(2049, 2048), "wide.png", "2049 \u00d7 2048"),
    ],
    ids=("kind", "drawing", "liar", "size"),
)
def test_a_file_that_cannot_be_sent_is_refused_at_the_field(
    seen: Visit, choose: Choose, data: bytes, name: str, words: str
) -> None:
    page = seen.page
    choose(data, name)
    expect(page.locator("#image-error")).to_contain_text(words)
    page.fill("#prompt", "never sent")
    page.click("#generate")
    expect(page.locator("#image")).to_be_focused()
    expect(page.locator("#problem")).to_contain_text("Picture")
    assert not any(url.endswith("/v1/jobs") for url in seen.requests)
    choose(picture(), "good.png")
    expect(page.locator("#image-error")).to_be_empty()


def test_a_file_over_the_limit_is_refused_unread(seen: Visit) -> None:
    page = seen.page
    page.locator("#from-picture").evaluate("part => { part.open = true; }")
    page.evaluate(DROP, ["#image-drop", 10 * 1024 * 1024 + 1, "heavy.png", "image/png"])
    expect(page.locator("#image-error")).to_contain_text("at most 10 MiB")
    page.get_by_role("button", name="Remove the picture").click()
    expect(page.locator("#image-error")).to_be_empty()


def test_a_mask_goes_along_and_what_the_api_refuses_is_said_at_it(
    seen: Visit, choose: Choose
) -> None:
    page = seen.page
    choose(picture())
    choose(picture(32, 32), "mask.png", "mask_image")
    expect(page.locator("#mask_image-name")).to_contain_text("32 \u00d7 32")
    expect(page.locator("#strength-value")).to_have_text("1.00")
    page.fill("#prompt", "a mask")
    page.click("#generate")
    expect(page.locator("#mask_image-error")).not_to_be_empty()
    choose(picture(), "better.png", "mask_image")
    ask(page, "a mask", num_inference_steps=1)
    await_state(page, "Done")
    expect(page.locator("#facts")).to_contain_text("96 \u00d7 64, with a mask")


def test_a_model_of_words_alone_offers_no_picture_and_sends_none(
    seen: Visit, choose: Choose
) -> None:
    page = seen.page
    choose(picture())
    expect(page.locator("#image-name")).to_contain_text("96 \u00d7 64")
    page.select_option("#model", "words-only")
    expect(page.locator("#from-picture")).to_be_hidden()
    ask(page, "only words", num_inference_steps=1)
    await_state(page, "Done")
    expect(page.locator("#facts")).not_to_contain_text("Started from")
