"""A picture that develops before one's eyes."""

from playwright.sync_api import expect

from tests.e2e.asking import ask, await_state
from tests.e2e.browser import Visit


def test_previews_of_a_running_job_are_shown_on_its_sheet(seen: Visit) -> None:
    page = seen.page
    ask(page, "a slow boat", num_inference_steps=60)
    preview = page.locator("#tray .sheet img")
    expect(preview).to_be_visible(timeout=30_000)
    first = preview.get_attribute("data-step")
    expect(preview).not_to_have_attribute("data-step", first or "", timeout=30_000)
    assert preview.evaluate("img => img.naturalWidth") > 0
    await_state(page, "Done")
    expect(page.locator("#tray .sheet")).to_have_count(0)


def test_previews_are_made_only_when_asked_for(seen: Visit) -> None:
    page = seen.page
    page.locator("#more").evaluate("more => { more.open = true; }")
    page.get_by_label("Show how it develops").uncheck()
    with page.expect_request(lambda sent: sent.method == "POST") as posted:
        ask(page, "a quick boat", num_inference_steps=2)
    assert "partial_images" not in (posted.value.post_data_json or {})
    await_state(page, "Done")
