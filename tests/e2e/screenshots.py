"""Take the pictures of the page that the README shows: ``python -m tests.e2e.screenshots``.

Everything in them is real: the API, the worker, the model that ships, Chromium. Seeds are fixed, so
that the same weights give the same pictures.
"""

import re
import sys
import tempfile
from pathlib import Path

from PIL import Image
from playwright.sync_api import Browser, Page, expect

from tests.e2e.browser import SETTLED, Visit, chromium, visit
from tests.e2e.page_stack import running_darkroom

FOLDER = Path(__file__).resolve().parents[2] / "docs" / "images"
WAIT_MS = 300_000  # of the first job: it waits for torch, on a machine that may be busy
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
UNDER_WAY = ("a white house and a pine tree in the snow at night, with the moon", 8)
DEADLINE_SECONDS = 1
TOO_LATE = "a green house on a beach by day, with clouds"
USUAL_STEPS = 20
MANY_STEPS = 150  # seconds enough for a picture of the bar, and for a deadline to pass behind it
SHOWN_FROM_PERCENT = 35


def main() -> int:
    """Write page.png, page-generating.png, page-failed.png and page-phone.png."""
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
            _ask(page, prompt, seed)
            expect(page.locator("#state")).to_have_text("Done", timeout=WAIT_MS)
        _save(page, "page")
        _shoot_phone(browser, address)
        _forget(seen, place=-1)
        _shoot_generating(page)
        _shoot_failed(seen)


def _shoot_phone(browser: Browser, address: str) -> None:
    with visit(browser, address, width=360, height=740) as seen:
        expect(seen.page.locator("#state")).to_have_text("Done")
        seen.page.fill("#prompt", SHOWN[0])
        _save(seen.page, "page-phone")


def _shoot_generating(page: Page) -> None:
    """A job of many steps, some way through them."""
    prompt, seed = UNDER_WAY
    _ask(page, prompt, seed, steps=MANY_STEPS)
    page.wait_for_function(
        "least => Number(document.querySelector('#progress').ariaValueNow) >= least",
        arg=SHOWN_FROM_PERCENT,
        timeout=WAIT_MS,
    )
    _save(page, "page-generating")


def _shoot_failed(seen: Visit) -> None:
    """A job whose deadline passes while the one before it, canceled in the end, still runs."""
    page = seen.page
    asked = {"prompt": TOO_LATE, "seed": 9, "deadline_seconds": DEADLINE_SECONDS}
    job = seen.context.request.post(f"{seen.origin}/v1/jobs", data=asked).json()["id"]
    page.wait_for_timeout(1_000 * DEADLINE_SECONDS)
    seen.context.request.post(f"{seen.origin}/v1/jobs/{page.url.rpartition('/')[2]}:cancel")
    ended = re.compile("Canceled|Done")  # whichever was quicker
    expect(page.locator("#state")).to_have_text(ended, timeout=WAIT_MS)
    _forget(seen, place=1)
    page.goto(f"{seen.origin}/#job/{job}")
    expect(page.locator("#state")).to_have_text("Failed", timeout=WAIT_MS)
    page.reload()
    page.fill("#prompt", TOO_LATE)
    _save(page, "page-failed")


def _forget(seen: Visit, place: int) -> None:
    """Erase the job at that place of the list, so that the frames fill one row."""
    jobs = f"{seen.origin}/v1/jobs"
    shown = [
        job for job in seen.context.request.get(jobs).json()["value"] if job["erased_at"] is None
    ]
    answer = seen.context.request.delete(f"{jobs}/{shown[place]['id']}")
    assert answer.ok, answer.text()


def _ask(page: Page, prompt: str, seed: int, steps: int = USUAL_STEPS) -> None:
    """Submit a job, and leave the form as somebody finds it who has opened nothing."""
    more = page.locator("#more")
    more.evaluate("more => { more.open = true; }")
    page.fill("#prompt", prompt)
    page.fill("#seed", str(seed))
    page.fill("#num_inference_steps", str(steps))
    page.click("#generate")
    expect(page.locator("#job-prompt")).to_have_text(prompt)
    page.fill("#seed", "")
    more.evaluate("more => { more.open = false; }")


def _save(page: Page, name: str) -> None:
    page.evaluate("document.activeElement.blur()")
    page.evaluate("scrollTo(0, 0)")
    for picture in page.locator("#tray img, .frame img").all():
        expect(picture).not_to_have_js_property("naturalWidth", 0)
    page.evaluate(SETTLED)
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
