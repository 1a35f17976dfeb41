"""A real Chromium, driven through Playwright, that notes whatever a page must not do."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

PHONE_BELOW_PIXELS = 600
PATIENCE_MS = 30_000  # of every `expect`: a busy machine is slow, not wrong
NAMES = ("chromium", "chromium-browser", "google-chrome")
# Resolves when nothing moves any more but what always does, such as an unmeasured bar.
SETTLED = """() => Promise.allSettled(document.getAnimations()
  .filter((one) => one.effect.getTiming().iterations !== Infinity)
  .map((one) => one.finished))"""
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


@contextmanager
def chromium() -> Iterator[Browser]:
    """Start Chromium with a new profile. Without one installed the test fails and says so."""
    found = next(filter(None, map(shutil.which, NAMES)), None)
    if found is None:
        pytest.fail("no Chromium on this machine: install the package `chromium` (apt-get install)")
    expect.set_options(timeout=PATIENCE_MS)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=list(FLAGS))
        try:
            yield browser
        finally:
            browser.close()


@dataclass
class Visit:
    """One page in a profile of its own, and what was seen of it."""

    page: Page
    context: BrowserContext
    origin: str
    requests: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)
    """Script errors, refusals of the content security policy, and dialogs."""


@contextmanager
def visit(
    browser: Browser, address: str, *, width: int = 1200, height: int = 900, scheme: str = "dark"
) -> Iterator[Visit]:
    """Open ``address`` in a window of that many pixels; a narrow one is a phone's touch screen."""
    is_phone = width < PHONE_BELOW_PIXELS
    context = browser.new_context(
        viewport={"width": width, "height": height},
        color_scheme="light" if scheme == "light" else "dark",
        locale="en-GB",
        has_touch=is_phone,
        is_mobile=is_phone,
    )
    origin = "{0.scheme}://{0.netloc}".format(urlsplit(address))
    seen = Visit(context.new_page(), context, origin)
    context.on("request", lambda request: seen.requests.append(request.url))
    seen.page.on("pageerror", lambda error: seen.complaints.append(f"error: {error}"))
    seen.page.on("console", lambda said: _note_console(seen, said.type, said.text))
    seen.page.on("dialog", lambda dialog: _refuse_dialog(seen, dialog))
    try:
        seen.page.goto(address)
        yield seen
    finally:
        context.close()


def _note_console(seen: Visit, kind: str, text: str) -> None:
    # "Failed to load resource" is Chromium's own note of a 4xx answer or of being offline.
    if kind == "error" and not text.startswith("Failed to load resource"):
        seen.complaints.append(f"console: {text}")


def _refuse_dialog(seen: Visit, dialog: object) -> None:
    seen.complaints.append(f"dialog: {dialog}")
    dialog.dismiss()  # type: ignore[attr-defined]
