"""Signing in by API key: what is asked for, where the key is kept, and what leaves with it."""

import json
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Request, expect

from tests.e2e.asking import ask, await_state, sign_in, tab_to
from tests.e2e.browser import Visit, visit

KEPT_IN = """() => JSON.stringify([
  Object.values(sessionStorage), Object.values(localStorage), document.cookie, location.href,
])"""


@pytest.fixture
def stranger(browser: Browser, guarded: str) -> Iterator[Visit]:
    """The page before anybody has signed in."""
    with visit(browser, guarded) as seen:
        yield seen
        assert seen.complaints == []


def test_the_form_takes_the_focus_and_the_page_waits_behind_it(stranger: Visit) -> None:
    page = stranger.page
    expect(page.get_by_label("API key")).to_be_focused()
    for hidden in ("#bench", "#sign-out", "#skip-link"):
        expect(page.locator(hidden)).to_be_hidden()


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("unknown", "not accepted"),
        ("expired", "not accepted"),
        ("submit-only", "Jobs.Read"),
        ("not a key", "not a key"),
        ("", "Enter a key"),
    ],
)
def test_a_key_that_does_not_do_is_said_at_the_field(
    stranger: Visit, keys: dict[str, str], name: str, words: str
) -> None:
    sign_in(stranger.page, keys.get(name, name))
    expect(stranger.page.locator("#key-error")).to_contain_text(words)
    expect(stranger.page.get_by_label("API key")).to_be_focused()
    assert stranger.page.evaluate("sessionStorage.length") == 0


def test_a_key_lets_in_and_is_kept_in_the_tab_alone(stranger: Visit, keys: dict[str, str]) -> None:
    page = stranger.page
    sent: list[Request] = []

    def note(request: Request) -> None:
        sent.append(request)

    page.on("request", note)
    sign_in(page, keys["good"])
    expect(page.get_by_label("Prompt", exact=True)).to_be_focused()
    ask(page, "a lighthouse", num_inference_steps=2)
    await_state(page, "Done")
    session, local, cookie, address = json.loads(page.evaluate(KEPT_IN))
    assert (session, local, cookie) == ([keys["good"]], [], "")
    assert keys["good"] not in address + page.content()
    asked = [request for request in sent if "/v1/" in request.url]
    bearer = f"Bearer {keys['good']}"
    assert asked
    assert all(request.header_value("authorization") == bearer for request in asked)
    page.reload()
    expect(page.locator("#job-prompt")).to_have_text("a lighthouse")


def test_pictures_come_as_object_urls_that_are_given_back(
    stranger: Visit, keys: dict[str, str]
) -> None:
    page = stranger.page
    sign_in(page, keys["good"])
    ask(page, "a first", num_inference_steps=1)
    await_state(page, "Done")
    picture = page.locator("#tray img")
    expect(picture).to_have_js_property("naturalWidth", 128)
    address = picture.get_attribute("src") or ""
    assert address.startswith("blob:")
    assert page.locator("#tray a[download]").get_attribute("href") == address
    assert page.locator(".frame img").first.get_attribute("src") == address
    page.get_by_role("button", name="Delete").click()
    page.locator("#confirm-yes").click()
    expect(page.locator("#welcome")).to_be_visible()
    gone = "address => fetch(address).then(() => false, () => true)"
    page.evaluate("window.given = true")
    expect(page.locator("#tray img")).to_have_count(0)
    assert page.evaluate(gone, address)
    stranger.complaints.clear()  # the fetch that had to fail


def test_a_key_that_ends_in_between_is_asked_for_again_and_the_work_goes_on(
    stranger: Visit, keys: dict[str, str]
) -> None:
    page = stranger.page
    sign_in(page, keys["good"])
    page.get_by_label("Prompt", exact=True).fill("kept meanwhile")
    # In one turn of the page's loop: a poll with the dead key must not bring the form up first.
    page.evaluate(
        """key => {
            for (const at of Object.keys(sessionStorage)) sessionStorage[at] = key;
            document.querySelector("#generate").click();
        }""",
        keys["expired"],
    )
    expect(page.locator("#key-error")).to_contain_text("no longer accepted")
    sign_in(page, keys["good"])
    expect(page.locator("#job-prompt")).to_have_text("kept meanwhile")
    await_state(page, "Done")


def test_signing_out_forgets_the_key_and_all_that_it_showed(
    stranger: Visit, keys: dict[str, str]
) -> None:
    page = stranger.page
    sign_in(page, keys["good"])
    ask(page, "a secret place", num_inference_steps=1)
    await_state(page, "Done")
    tab_to(page, "#sign-out")
    page.keyboard.press("Enter")
    expect(page.get_by_label("API key")).to_be_focused()
    assert page.evaluate("sessionStorage.length") == 0
    assert "a secret place" not in page.content()
    assert "#job" not in page.url
