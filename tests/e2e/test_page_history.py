"""What was asked before: pages of it, one state of it, run again, deleted; and what still waits."""

import re
from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.e2e.asking import ask, await_state, tab_to
from tests.e2e.browser import Visit, visit
from tests.e2e.page_stack import running_darkroom

PAGE_JOBS = 24


def submit(seen: Visit, prompt: str, **fields: Any) -> str:
    """Submit a job beside the page; return its id."""
    asked = {"prompt": prompt, "num_inference_steps": 1, "width": 64, "height": 64, **fields}
    answer = seen.context.request.post(f"{seen.origin}/v1/jobs", data=asked)
    assert answer.status == 202, answer.text()
    return str(answer.json()["id"])


def prompts(page: Page) -> list[str]:
    return page.locator(".frame-prompt").all_text_contents()


@pytest.fixture
def many(
    browser: Browser, tmp_path_factory: pytest.TempPathFactory, fake_engine: dict[str, str]
) -> Iterator[Visit]:
    """A Darkroom of its own with 60 jobs, the first two of which failed."""
    folder = tmp_path_factory.mktemp("many")
    with running_darkroom(folder, **fake_engine) as address, visit(browser, address) as seen:
        for number in range(60):
            submit(seen, f"job {number}", model="broken" if number < 2 else "demo")
        seen.page.reload()
        yield seen
        assert seen.complaints == []


def test_older_jobs_come_page_by_page_and_stay(many: Visit) -> None:
    page = many.page
    frames = page.locator(".frame")
    older = page.get_by_role("button", name="Older jobs")
    expect(frames).to_have_count(PAGE_JOBS)
    older.click()
    expect(frames).to_have_count(2 * PAGE_JOBS)
    expect(frames.nth(PAGE_JOBS)).to_be_focused()
    submit(many, "one more")
    page.evaluate("dispatchEvent(new Event('focus'))")
    expect(frames).to_have_count(2 * PAGE_JOBS + 1)
    expect(frames.first).to_contain_text("one more")
    older.click()
    expect(older).to_be_hidden()
    assert prompts(page) == ["one more", *(f"job {number}" for number in reversed(range(60)))]
    page.get_by_label("Show", exact=True).select_option("Failed")
    expect(frames).to_have_count(2)  # on the last pages of the list
    assert prompts(page) == ["job 1", "job 0"]
    page.get_by_label("Show", exact=True).select_option("Canceled")
    expect(page.locator("#recent-empty")).to_have_text("No job is in this state.")
    expect(page.locator("#recent-empty")).to_be_visible()


def test_a_failed_job_says_why_and_runs_again(seen: Visit) -> None:
    page = seen.page
    page.select_option("#model", "broken")
    ask(page, "without weights", num_inference_steps=1)
    await_state(page, "Failed")
    expect(page.locator("#job-error")).to_contain_text("ModelUnavailable")
    before = page.url
    page.get_by_role("button", name="Run again").click()
    expect(page).not_to_have_url(before)
    expect(page.locator("#stage")).to_be_focused()
    await_state(page, "Failed")
    expect(page.locator(".frame").first).to_have_attribute("aria-current", "true")
    expect(page.locator(".frame", has_text="without weights")).to_have_count(2)


def test_a_job_is_deleted_after_a_yes_by_keyboard(seen: Visit) -> None:
    page = seen.page
    ask(page, "to be forgotten", num_inference_steps=1)
    await_state(page, "Done")
    address = page.url
    delete = page.get_by_role("button", name="Delete")
    delete.focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("button", name="Keep it")).to_be_focused()
    page.keyboard.press("Escape")
    expect(delete).to_be_focused()
    expect(page.locator("#tray img")).to_have_count(1)
    page.keyboard.press("Enter")
    tab_to(page, "#confirm-yes")
    page.keyboard.press("Enter")
    expect(page.locator("#welcome")).to_be_visible()
    expect(page.locator(".frame", has_text="to be forgotten")).to_have_count(0)
    page.goto("about:blank")
    page.goto(address)
    expect(page.locator("#job-prompt")).to_have_text("This job was erased.")
    expect(page.get_by_role("button", name="Use these parameters")).to_have_count(0)


def test_a_waiting_job_shows_its_place_and_when_it_may_begin(seen: Visit) -> None:
    page = seen.page
    slow = {"num_inference_steps": 200, "width": 256, "height": 256}
    ahead = [submit(seen, f"number {place}", **slow) for place in range(4)]
    ask(page, "waits for its turn", num_inference_steps=1)
    line = page.locator("#progress-text")
    expect(line).to_have_text(re.compile(r"^Number [2-5] in line, begins in about \d+ (s|min)$"))
    for job in reversed(ahead):  # the last first, so that none of them begins meanwhile
        assert seen.context.request.post(f"{seen.origin}/v1/jobs/{job}:cancel").ok
    await_state(page, "Done")
