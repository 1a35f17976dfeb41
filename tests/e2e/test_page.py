"""The page in a real Chromium, against a real API and a real worker."""

import re
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, expect

from tests.e2e.asking import ask, await_state, tab_to
from tests.e2e.browser import Visit, visit
from tests.e2e.page_stack import running_darkroom

MARKUP = '<img src=x onerror="window.ran = 1"><script>window.ran = 1</script><b>bold</b>'
WATCH_PROGRESS = """() => {
  window.seen = [];
  const bar = document.querySelector("#progress");
  const note = () => window.seen.push(Number(bar.getAttribute("aria-valuenow")));
  new MutationObserver(note).observe(bar, { attributes: true, attributeFilter: ["aria-valuenow"] });
}"""


def test_a_prompt_becomes_a_picture_while_the_bar_moves(
    browser: Browser, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """With the model that ships."""
    with (
        running_darkroom(tmp_path_factory.mktemp("model")) as address,
        visit(browser, address) as seen,
    ):
        page = seen.page
        expect(page.locator("#model")).to_have_value("demo")
        page.evaluate(WATCH_PROGRESS)
        ask(page, "a blue square on a yellow background", num_inference_steps=20, seed=7)
        expect(page.get_by_role("progressbar")).to_be_visible()
        await_state(page, "Done")
        steps = [value for value in page.evaluate("window.seen") if 0 < value < 100]
        assert len(set(steps)) >= 3, steps
        assert steps == sorted(steps)
        picture = page.get_by_role("img", name="a blue square on a yellow background")
        expect(picture).to_have_js_property("naturalWidth", 128)
        expect(page.locator("#facts")).to_contain_text("Where the time went")
        expect(page.locator("#tray")).to_contain_text("Seed 7")
        expect(page.locator("#announcement")).to_contain_text("Done")
        page.reload()
        expect(page.locator("#tray img")).to_have_js_property("naturalWidth", 128)
        assert seen.complaints == []


def test_a_prompt_with_markup_shows_as_text(seen: Visit) -> None:
    page = seen.page
    ask(page, MARKUP, num_inference_steps=1)
    await_state(page, "Done")
    expect(page.locator("#job-prompt")).to_have_text(MARKUP)
    expect(page.locator(".frame-prompt").first).to_have_text(MARKUP)
    assert page.locator("main :is(b, script):text('bold'), img[src='x']").count() == 0
    assert page.locator("main script").count() == 0
    assert page.evaluate("window.ran") is None


def test_what_the_api_refuses_is_said_at_the_field(seen: Visit) -> None:
    page = seen.page
    page.fill("#prompt", "a red circle")
    page.fill("#width", "100")
    page.click("#generate")
    expect(page.locator("#width-error")).to_contain_text("multiple of 8")
    expect(page.locator("#width")).to_have_attribute("aria-invalid", "true")
    expect(page.locator("#width")).to_be_focused()
    expect(page.locator("#problem")).to_contain_text("Width")
    expect(page.locator("#height-error")).to_be_empty()
    page.fill("#width", "128")
    expect(page.locator("#problem")).to_be_hidden()


def test_several_faults_are_each_said_and_a_closed_part_opens(seen: Visit) -> None:
    page = seen.page
    page.locator("#more").evaluate("more => { more.open = true; }")
    page.fill("#num_inference_steps", "500")
    page.fill("#seed", "1.5")
    page.locator("#more").evaluate("more => { more.open = false; }")
    page.click("#generate")
    for name in ("prompt", "num_inference_steps", "seed"):
        expect(page.locator(f"#{name}-error")).not_to_be_empty()
    expect(page.locator("#num_inference_steps")).to_be_visible()
    expect(page.locator("#problem li")).to_have_count(3)


def test_a_running_job_can_be_canceled_and_a_lost_connection_comes_back(seen: Visit) -> None:
    page = seen.page
    ask(page, "a long one", num_inference_steps=200, width=512, height=512)
    await_state(page, "Running")
    expect(page.locator("#progress-text")).to_contain_text("Generating")
    seen.context.set_offline(True)
    expect(page.locator("#connection")).to_contain_text("connection to Darkroom is lost")
    seen.context.set_offline(False)
    expect(page.locator("#connection")).to_be_hidden(timeout=20_000)
    page.get_by_role("button", name="Cancel", exact=True).click()
    await_state(page, "Canceled")
    expect(page.locator("#tray img")).to_have_count(0)
    expect(page.locator("#cancel")).to_be_hidden()


def test_the_keyboard_alone_submits_and_opens_a_frame(seen: Visit) -> None:
    page = seen.page
    tab_to(page, "#prompt")
    page.keyboard.type("a white star on a red background")
    tab_to(page, "#more > summary")
    page.keyboard.press("Enter")
    tab_to(page, "#num_inference_steps")
    page.keyboard.type("2")
    tab_to(page, "#generate")
    page.keyboard.press("Enter")
    expect(page.locator("#job-prompt")).to_have_text("a white star on a red background")
    await_state(page, "Done")
    frames = page.locator(".frame")
    last = frames.count() - 1
    frames.nth(last).focus()
    expected = frames.nth(last).locator(".frame-prompt").text_content() or ""
    page.keyboard.press("Enter")
    expect(page.locator("#stage")).to_be_focused()
    expect(page.locator("#job-prompt")).to_have_text(expected)


def test_a_finished_job_gives_its_parameters_back(seen: Visit) -> None:
    page = seen.page
    ask(page, "two green diamonds", num_images=2, num_inference_steps=2, seed=41)
    await_state(page, "Done")
    expect(page.locator("#tray img")).to_have_count(2)
    page.fill("#prompt", "")
    page.get_by_role("button", name="Use seed 42").click()
    for name, value in {"prompt": "two green diamonds", "seed": "42", "num_images": "1"}.items():
        expect(page.locator(f"#{name}")).to_have_value(value)
    page.get_by_role("button", name="Use these parameters").click()
    expect(page.locator("#seed")).to_have_value("41")
    expect(page.locator("#num_images")).to_have_value("2")


@pytest.mark.parametrize("path", ["/", "/docs"])
@pytest.mark.parametrize("scheme", ["dark", "light"])
def test_a_phone_needs_no_sideways_scroll(
    browser: Browser, darkroom: str, path: str, scheme: str
) -> None:
    with visit(browser, darkroom + path, width=360, height=740, scheme=scheme) as seen:
        if path == "/":
            ask(seen.page, "unbroken" * 40, num_inference_steps=1, num_images=2)
            await_state(seen.page, "Done")
        expect(seen.page.locator(".frame, .route").first).to_be_visible()
        assert seen.page.evaluate("document.documentElement.scrollWidth") <= 360
        assert seen.complaints == []


def test_the_reference_shows_every_route_of_the_api(browser: Browser, darkroom: str) -> None:
    with visit(browser, f"{darkroom}/docs#schema-GenerationRequest") as seen:
        expect(seen.page.locator("#schema-GenerationRequest dl")).to_be_visible()
        api = seen.context.request.get(f"{darkroom}/openapi.json").json()
        routes = sorted(
            f"{method.upper()}{path}"
            for path, methods in api["paths"].items()
            for method in methods
        )
        assert sorted(seen.page.locator(".address").all_text_contents()) == routes
        submit = seen.page.locator("section", has_text=re.compile("Submit a job")).locator("pre")
        expect(submit.first).to_contain_text('-d \'{"prompt":')
        assert seen.complaints == []
        assert {urlsplit(url).netloc for url in seen.requests} == {urlsplit(darkroom).netloc}
