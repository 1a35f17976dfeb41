"""axe-core over every state of the page: no serious or critical fault."""

import pytest
from playwright.sync_api import Browser, Page, expect

from emulators.azurite import install_npm, tools_folder
from tests.e2e.asking import ask, await_state, sign_in
from tests.e2e.browser import SETTLED, Visit, visit

AXE_VERSION = "4.14.1"
GRAVE = ("serious", "critical")


@pytest.fixture(scope="module")
def axe() -> str:
    """The source of axe-core, installed once like the emulators from npm."""
    folder = tools_folder() / "axe-core"
    install_npm(folder, "axe-core", AXE_VERSION)
    return (folder / "node_modules" / "axe-core" / "axe.min.js").read_text()


def check(page: Page, axe: str) -> None:
    """Fail for each serious or critical fault of what the page shows now."""
    page.evaluate(SETTLED)
    if not page.evaluate("'axe' in window"):
        page.evaluate(axe)
    found = page.evaluate("axe.run(document, { resultTypes: ['violations'] })")
    assert len(found["passes"]) > 10
    faults = [
        f"{fault['id']}: {node['html']} {node['failureSummary']}"
        for fault in found["violations"]
        if fault["impact"] in GRAVE
        for node in fault["nodes"]
    ]
    assert faults == []


def test_the_check_finds_a_planted_fault(seen: Visit, axe: str) -> None:
    seen.page.evaluate("document.querySelector('label[for=prompt]').remove()")
    seen.page.evaluate("document.querySelector('#prompt').removeAttribute('placeholder')")
    with pytest.raises(AssertionError, match=r'label-title-only: <textarea id="prompt"'):
        check(seen.page, axe)


@pytest.mark.parametrize(("scheme", "width"), [("dark", 1200), ("light", 360)])
def test_no_state_of_a_job_has_a_grave_fault(
    browser: Browser, darkroom: str, axe: str, scheme: str, width: int
) -> None:
    with visit(browser, darkroom, width=width, scheme=scheme) as seen:
        page = seen.page
        expect(page.locator("#model")).to_have_value("demo")
        page.locator("#from-picture").evaluate("part => { part.open = true; }")
        page.click("#generate")
        expect(page.locator("#prompt-error")).not_to_be_empty()
        check(page, axe)
        ask(page, "a long one", num_inference_steps=200)
        expect(page.locator("#progress-text")).to_contain_text("Generating")
        check(page, axe)
        seen.context.request.post(f"{seen.origin}/v1/jobs/{page.url.rpartition('/')[2]}:cancel")
        ask(page, "two short ones", num_inference_steps=1, num_images=2)
        await_state(page, "Done")
        check(page, axe)
        page.get_by_role("button", name="Delete").click()
        check(page, axe)
        page.keyboard.press("Escape")
        page.select_option("#model", "broken")
        ask(page, "no weights", num_inference_steps=1)
        await_state(page, "Failed")
        check(page, axe)
        assert seen.complaints == []


@pytest.mark.parametrize("width", [1200, 360])
def test_neither_sign_in_nor_the_empty_page_has_a_grave_fault(
    browser: Browser, guarded: str, keys: dict[str, str], axe: str, width: int
) -> None:
    with visit(browser, guarded, width=width) as seen:
        sign_in(seen.page, "unknown")
        expect(seen.page.locator("#key-error")).not_to_be_empty()
        check(seen.page, axe)
        seen.page.fill("#key", "")
        sign_in(seen.page, keys["newcomer"])
        expect(seen.page.locator("#welcome")).to_be_visible()
        check(seen.page, axe)
        assert seen.complaints == []
