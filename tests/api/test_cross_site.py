"""What a page of another site can make a browser send here has no effect."""

import pytest

from tests.api.stack import PROMPT, Stack

FORM = {"prompt": (None, PROMPT)}
REFUSED = ["cross-site", "same-site"]


@pytest.mark.parametrize("site", REFUSED)
async def test_a_form_of_another_site_makes_no_job(stack: Stack, site: str) -> None:
    headers = {"sec-fetch-site": site}
    answer = await stack.http.post("/v1/jobs", files=FORM, headers=headers)
    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "CrossSite")
    assert await stack.messages() == []


@pytest.mark.parametrize("site", REFUSED)
async def test_the_address_of_a_picture_makes_none(stack: Stack, site: str) -> None:
    asked = {"prompt": PROMPT}
    headers = {"sec-fetch-site": site}
    answer = await stack.http.get("/api/generate", params=asked, headers=headers)
    assert answer.status_code == 403
    assert answer.json().keys() == {"error"}
    assert await stack.messages() == []


async def test_another_site_cancels_nothing(stack: Stack) -> None:
    job = await stack.submit()
    headers = {"sec-fetch-site": "cross-site"}
    answer = await stack.http.post(f"/v1/jobs/{job['id']}:cancel", headers=headers)
    assert answer.status_code == 403
    assert (await stack.state.jobs.get(job["id"])).status == "NotStarted"


@pytest.mark.parametrize("site", ["same-origin", "none", None])
async def test_our_own_page_and_other_programs_are_served(stack: Stack, site: str | None) -> None:
    headers = {"sec-fetch-site": site} if site else {}
    answer = await stack.http.post("/v1/jobs", files=FORM, headers=headers)
    assert answer.status_code == 202


async def test_a_credential_shows_that_it_was_meant(stack: Stack) -> None:
    headers = {"sec-fetch-site": "cross-site", "authorization": "Bearer any"}
    answer = await stack.http.post("/v1/jobs", files=FORM, headers=headers)
    assert answer.status_code != 403


async def test_another_site_may_link_to_a_page(stack: Stack) -> None:
    headers = {"sec-fetch-site": "cross-site"}
    assert (await stack.http.get("/v1/models", headers=headers)).status_code == 200
