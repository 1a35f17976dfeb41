"""Take the pictures of the page that the README shows: ``python -m tests.e2e.screenshots``.

Everything in them is real: the API, the worker, the model that ships, Chromium. Seeds are fixed, so
that the same weights give the same pictures.
"""

import sys
import tempfile
from pathlib import Path

from PIL import Image
from playwright.sync_api import Browser, Page, expect

from tests.e2e.browser import chromium, visit
from tests.e2e.page_stack import running_darkroom

FOLDER = Path(__file__).resolve().parents[2] / "docs" / "images"
WAIT_MS = 120_000
LEVELS_APART = 3  # of 256: too little for an eye, and it takes a third off a file full of gradients
GALLERY = (
    ("a yellow star on a purple background", 1),
    ("a pink house and a pine tree in the snow by day, with the sun and clouds", 2),
    ("a red heart above a white circle on a black background", 3),
    ("a boat with a white sail on the sea at sunset", 4),
    ("a blue square on a yellow background", 7),
    ("a yellow house and a cactus in the desert at night, with the moon", 5),
    ("an orange triangle to the left of a green diamond on a blue background", 6),
)
SHOWN = ("a red house and a pine tree in a green field with mountains at sunset", 11)


def main() -> int:
    """Write page.png and page-phone.png."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory() as folder,
        chromium() as browser,
        running_darkroom(Path(folder)) as address,
    ):
        _shoot(browser, address)
    return 0


def _shoot(browser: Browser, address: str) -> None:
    with visit(browser, address) as seen:
        page = seen.page
        expect(page.locator("#model")).to_have_value("demo")
        for prompt, seed in (*GALLERY, SHOWN):
            _generate(page, prompt, seed)
        page.fill("#seed", "")
        page.locator("#more").evaluate("more => { more.open = false; }")
        page.locator("#prompt").blur()
        _save(page, "page")
    with visit(browser, address, width=360, height=740) as seen:
        seen.page.fill("#prompt", SHOWN[0])
        seen.page.locator("#prompt").blur()
        _save(seen.page, "page-phone")


def _generate(page: Page, prompt: str, seed: int) -> None:
    page.locator("#more").evaluate("more => { more.open = true; }")
    page.fill("#prompt", prompt)
    page.fill("#seed", str(seed))
    page.click("#generate")
    expect(page.locator("#job-prompt")).to_have_text(prompt)
    expect(page.locator("#state")).to_have_text("Done", timeout=WAIT_MS)


def _save(page: Page, name: str) -> None:
    for picture in page.locator("#tray img, .frame img").all():
        expect(picture).not_to_have_js_property("naturalWidth", 0)
    page.evaluate("Promise.all(document.getAnimations().map((one) => one.finished))")
    path = FOLDER / f"{name}.png"
    page.screenshot(path=path, full_page=True)
    with Image.open(path) as opened:
        shot = opened.convert("RGB").point(_coarser)
    shot.save(path, optimize=True)
    print(f"{path.name}: {path.stat().st_size / 1000:.0f} kB")


def _coarser(level: int) -> int:
    return min(255, round(level / LEVELS_APART) * LEVELS_APART)


if __name__ == "__main__":
    sys.exit(main())
