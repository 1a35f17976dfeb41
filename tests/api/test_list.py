"""GET /v1/jobs: newest first, by pages, by filters, one's own."""

from darkroom.jobs import cancel
from tests.api.stack import Stack, open_stack
from tests.samples import make_job


async def test_the_newest_come_first_page_by_page(stack: Stack) -> None:
    made = [(await stack.submit())["id"] for _ in range(7)]
    found: list[str] = []
    link = "/v1/jobs?limit=3"
    pages = 0
    while link:
        page = (await stack.http.get(link)).json()
        found += [job["id"] for job in page["value"]]
        link = page.get("next_link", "")
        pages += 1
        assert pages <= 4
    assert found == made[::-1]
    assert "next_link" not in page, "left out, not null"


async def test_a_next_link_is_absolute_and_keeps_the_filters() -> None:
    async with open_stack(public_url="https://pictures.example") as stack:
        for _ in range(3):
            await stack.submit(tags={"team": "print & web"})
        params = {"limit": "2", "tag": "team:print & web", "status": "NotStarted"}
        page = (await stack.http.get("/v1/jobs", params=params)).json()
        link = page["next_link"]
        assert link.startswith("https://pictures.example/v1/jobs?")
        rest = (await stack.http.get(link)).json()
        assert len(rest["value"]) == 1


async def test_filters_choose(stack: Stack) -> None:
    tagged = await stack.submit(tags={"team": "print"})
    stack.clock.advance(10)
    other = await stack.submit(model="words-only", width=64, height=64, num_inference_steps=1)
    await stack.http.post(f"/v1/jobs/{tagged['id']}:cancel")

    async def ids(**params: str) -> list[str]:
        page = (await stack.http.get("/v1/jobs", params=params)).json()
        return [job["id"] for job in page["value"]]

    assert await ids(tag="team:print") == [tagged["id"]]
    assert await ids(tag="team:web") == []
    assert await ids(status="Canceled") == [tagged["id"]]
    assert await ids(model="words-only") == [other["id"]]
    assert await ids(created_after="2026-01-01T00:00:05Z") == [other["id"]]
    assert await ids(created_after="2026-01-01T01:00:05+01:00") == [other["id"]]
    assert await ids(status="Canceled", model="words-only") == []


async def test_nobody_elses_are_listed(stack: Stack) -> None:
    foreign = make_job(tenant="somebody-else")
    await stack.state.jobs.create(foreign)
    await stack.state.jobs.create(cancel(make_job(tenant="acme"), stack.clock.now()))
    assert (await stack.http.get("/v1/jobs")).json() == {"value": []}
