"""Dead letters by way of the API on a real Service Bus client: list, show, resubmit, discard."""

from darkroom.jobs import JobError, fail
from tests.api.stack import open_stack
from tests.azure.emulated import running_bus

DEAD = "/v1/dead-letters"


async def test_an_operator_settles_what_a_service_bus_queue_set_aside() -> None:
    async with running_bus() as bus:
        queue = bus.open_queue()
        try:
            await queue.open()
            async with open_stack(queues={"short": queue}) as stack:
                ids = [(await stack.submit(seed=number))["id"] for number in range(3)]
                for lease in await queue.lease(3, 5):
                    await lease.dead_letter("OutOfMemory", "no room for even one picture")
                failed = await stack.state.jobs.get(ids[1])
                error = JobError(code="OutOfMemory", message="no room")
                await stack.state.jobs.compare_and_set(
                    fail(failed, stack.clock.now(), error), failed.version
                )
                listed = (await stack.http.get(DEAD)).json()["value"]
                assert {one["message_id"] for one in listed} == set(ids)
                shown = (await stack.http.get(f"{DEAD}/short/{ids[1]}")).json()
                assert (shown["reason"], shown["job_status"]) == ("OutOfMemory", "Failed")
                assert shown["message"]["job_id"] == ids[1]

                anew = await stack.http.post(f"{DEAD}/short/{ids[1]}:resubmit")
                assert anew.json()["outcome"] == "admitted"
                back = await stack.http.post(f"{DEAD}/short/{ids[0]}:resubmit")
                assert back.json() == {"outcome": "returned", "job_id": None}
                gone = await stack.http.post(f"{DEAD}/short/{ids[2]}:discard")
                assert gone.status_code == 204
                assert (await stack.state.jobs.get(ids[2])).status == "Failed"

                assert (await stack.http.get(DEAD)).json()["value"] == []
                waiting = await queue.lease(10, 5)
                while len(waiting) < 2:
                    waiting = [*waiting, *await queue.lease(10, 5)]
                assert {one.message_id for one in waiting} == {ids[0], anew.json()["job_id"]}
        finally:
            await queue.close()
