"""What a person does on the page, for the tests: ask for a picture, wait for a state, press Tab."""

import re

import pytest
from playwright.sync_api import Page, expect

PICTURE_MS = 90_000  # the first picture of the real model waits for torch


def ask(page: Page, prompt: str, **fields: int | str) -> None:
    """Fill the form and press Generate."""
    page.locator("#more").evaluate("more => { more.open = true; }")
    page.fill("#prompt", prompt)
    for name, value in fields.items():
        page.fill(f"#{name}", str(value))
    page.click("#generate")
    expect(page.locator("#job-prompt")).to_have_text(prompt)


def await_state(page: Page, state: str) -> None:
    """Wait for a state; an end of another kind fails at once."""
    ends = re.compile(f"{state}|Done|Failed|Canceled")
    expect(page.locator("#state")).to_have_text(ends, timeout=PICTURE_MS)
    expect(page.locator("#state")).to_have_text(state)


def sign_in(page: Page, key: str) -> None:
    """Type a key into the form, which has the focus, and press Enter."""
    expect(page.get_by_label("API key")).to_be_focused()
    page.keyboard.type(key)
    page.keyboard.press("Enter")


def tab_to(page: Page, selector: str) -> None:
    """Press Tab until that element has the focus, and check that the focus can be seen."""
    target = page.locator(selector).first
    for _ in range(60):
        page.keyboard.press("Tab")
        if target.evaluate("node => node === document.activeElement"):
            assert target.evaluate("node => getComputedStyle(node).outlineStyle") != "none"
            return
    pytest.fail(f"Tab does not reach {selector}")
