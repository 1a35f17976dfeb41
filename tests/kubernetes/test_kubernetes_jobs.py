"""What Kubernetes-native dispatch makes of a job, and what no broker has: beyond the contract."""

import asyncio
import json
from datetime import timedelta
from typing import Any

import kubernetes_validate
import pytest

from darkroom.errors import InvalidInput, LeaseLost, QueueUnavailable, SettingsError
from darkroom.messages import Message, decode
from darkroom.queues.base import MAX_DELIVERY_COUNT_EXCEEDED, JobQueue, QueueDepth
from darkroom.queues.kubernetes_jobs import COMPLETED_KEPT_SECONDS
from darkroom.queues.kubernetes_manifests import KEPT_SECONDS
from tests.kubernetes.cluster import KILLED, NAMESPACE, Cluster, RunningPod, pod_template
from tests.samples import make_message


class Note:
    """A message of any id and size."""

    def __init__(self, message_id: str, body: bytes = b"{}") -> None:
        self.message_id = message_id
        self.properties = {"tenant": "Acme, Inc.", "model": "demo"}
        self._body = body

    def encode(self) -> bytes:
        return self._body


async def sent(cluster: Cluster, message: Message | None = None) -> dict[str, Any]:
    """Send one message and return its Job."""
    await cluster.queue().send(message or make_message())
    (job,) = cluster.server.all("batch", "jobs", NAMESPACE)
    return job


async def start(cluster: Cluster) -> RunningPod:
    (job,) = cluster.startable()
    return cluster.start(job)


async def finish(cluster: Cluster, queue: JobQueue, message_id: str) -> None:
    pod = await start(cluster)
    lease = await pod.hold()
    assert lease.message_id == message_id
    await lease.complete()
    pod.exit()


async def test_a_job_is_the_pools_template_with_the_message_in_it(cluster: Cluster) -> None:
    message = make_message()
    job = await sent(cluster, message)
    assert job["metadata"]["name"] == message.job_id
    assert decode(job["metadata"]["annotations"]["darkroom/message"].encode()) == message
    pod = job["spec"]["template"]
    assert pod["spec"]["containers"] == pod_template()["template"]["spec"]["containers"]
    assert pod["spec"]["terminationGracePeriodSeconds"] == 330
    assert pod["spec"]["restartPolicy"] == "Never"
    assert pod["metadata"]["labels"]["app.kubernetes.io/component"] == "worker"
    assert pod["metadata"]["labels"]["darkroom/pool"] == "short"
    assert job["spec"]["suspend"] is False


async def test_labels_name_no_tenant(cluster: Cluster) -> None:
    job = await sent(cluster, make_message(tenant="acme"))
    labels = job["metadata"]["labels"]
    assert "acme" not in json.dumps(labels)
    again = make_message(tenant="acme")
    await cluster.queue().send(again)
    other = list(cluster.server.all("batch", "jobs"))[1]["metadata"]["labels"]
    assert other["darkroom/tenant"] == labels["darkroom/tenant"], "one tenant's jobs can be found"


@pytest.mark.parametrize("version", ["1.34", "1.35", "1.36"])
@pytest.mark.parametrize("kueue", [None, "team-a"])
async def test_a_job_is_valid_to_kubernetes(
    cluster: Cluster, version: str, kueue: str | None
) -> None:
    cluster.server.add("", "podtemplates", pod_template(kueue=kueue))
    due = cluster.now + timedelta(hours=1)
    await cluster.queue().send(make_message(), not_before=due)
    await cluster.queue().send(make_message())
    for job in cluster.server.all("batch", "jobs"):
        kubernetes_validate.validate(job, version, strict=True)


async def test_a_second_send_is_dropped_even_after_the_job_is_done(cluster: Cluster) -> None:
    queue, message = cluster.queue(), make_message()
    await queue.send(message)
    await queue.send(message)
    await finish(cluster, queue, message.job_id)
    await cluster.queue().send(message)
    assert await queue.depth() == QueueDepth(active=0, dead_lettered=0, scheduled=0)


async def test_another_replica_adopts_what_it_finds(cluster: Cluster) -> None:
    message = make_message()
    await cluster.queue().send(message)
    restarted = cluster.queue()
    assert (await restarted.depth()).active == 1
    await restarted.send(message)
    assert (await restarted.depth()).active == 1
    await restarted.withdraw(message.job_id)
    assert (await restarted.depth()).active == 0


async def test_pools_do_not_see_each_others_jobs(cluster: Cluster) -> None:
    cluster.server.add("", "podtemplates", pod_template("darkroom-long"))
    await cluster.queue("long").send(make_message(pool="long"))
    assert (await cluster.queue("short").depth()).active == 0
    assert (await cluster.queue("long").depth()).active == 1


async def test_with_kueue_a_job_is_born_suspended_in_its_pools_queue(
    kueue_cluster: Cluster,
) -> None:
    job = await sent(kueue_cluster)
    assert job["spec"]["suspend"] is True
    assert job["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "team-a"
    assert kueue_cluster.startable() == []
    assert (await kueue_cluster.queue().depth()).active == 1


async def test_with_kueue_a_scheduled_job_is_kept_from_it_until_its_time(
    kueue_cluster: Cluster,
) -> None:
    queue = kueue_cluster.queue()
    await queue.send(make_message(), not_before=kueue_cluster.now + timedelta(minutes=5))
    (job,) = kueue_cluster.server.all("batch", "jobs")
    assert "kueue.x-k8s.io/queue-name" not in job["metadata"]["labels"]
    await queue.tend()
    assert (await queue.depth()).scheduled == 1
    await kueue_cluster.advance(301)
    await queue.tend()
    assert job["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "team-a"
    assert job["spec"]["suspend"] is True, "it is Kueue's to start"
    assert await queue.depth() == QueueDepth(active=1, dead_lettered=0, scheduled=0)


async def test_one_pod_has_one_message_and_then_nothing_more(cluster: Cluster) -> None:
    for _ in range(3):
        await cluster.queue().send(make_message())
    pod = cluster.start(cluster.startable()[0])
    leases = await pod.queue.lease(10, 0)
    assert len(leases) == 1
    assert await pod.queue.lease(10, 0.01) == []
    await leases[0].complete()
    await pod.queue.finished()
    assert await pod.queue.lease(10, 60) == [], "soon: there is nothing to wait for"


async def test_asking_again_and_again_after_the_end_starves_nobody(cluster: Cluster) -> None:
    await sent(cluster)
    pod = await start(cluster)
    await (await pod.hold()).complete()
    turns: list[int] = []

    async def ask() -> None:
        while not turns:
            await pod.queue.lease(1, 0)

    asking = asyncio.create_task(ask())
    await asyncio.sleep(0)
    turns.append(1)  # never reached were the event loop not given back
    await asking


@pytest.mark.parametrize(
    ("settle", "status"),
    [("complete", 0), ("abandon", 1), ("abandon_uncounted", 75), ("dead_letter", 65)],
)
async def test_settling_chooses_the_exit_status(cluster: Cluster, settle: str, status: int) -> None:
    await sent(cluster)
    pod = await start(cluster)
    lease = await pod.hold()
    if settle == "dead_letter":
        await lease.dead_letter("UnsafeContent", "The filter refused it.")
    elif settle == "abandon_uncounted":
        await lease.abandon(counted=False)
    else:
        await getattr(lease, settle)()
    await pod.queue.finished()
    assert pod.queue.exit_status == status


async def test_a_pod_that_goes_before_it_worked_does_not_count(cluster: Cluster) -> None:
    await sent(cluster)
    pod = await start(cluster)
    pod.exit()  # drained before its first lease
    await cluster.advance(10)
    assert (await (await start(cluster)).hold()).delivery_count == 1


@pytest.mark.parametrize(("disrupted", "count"), [(True, 1), (False, 2)])
async def test_an_eviction_does_not_count_and_a_crash_does(
    cluster: Cluster, disrupted: bool, count: int
) -> None:
    await sent(cluster)
    (await start(cluster)).exit(KILLED, disrupted=disrupted)
    await cluster.advance(10)
    assert (await (await start(cluster)).hold()).delivery_count == count


@pytest.mark.parametrize("settle", ["complete", "abandon"])
async def test_what_kueue_preempts_counts_for_nothing_whatever_it_exits_with(
    kueue_cluster: Cluster, settle: str
) -> None:
    """A job that ended in its grace period is found ended by the next pod, which completes."""
    await sent(kueue_cluster)
    kueue_cluster.admit()
    pod = await start(kueue_cluster)
    lease = await pod.hold()
    kueue_cluster.preempt(pod)
    assert (await kueue_cluster.queue().depth()).active == 1
    await getattr(lease, settle)()
    pod.exit()
    kueue_cluster.admit()
    assert (await (await start(kueue_cluster)).hold()).delivery_count == 1


async def test_pods_that_die_without_a_word_end_as_a_dead_letter(cluster: Cluster) -> None:
    message = make_message()
    await sent(cluster, message)
    for _ in range(3):
        (await start(cluster)).exit(KILLED)
        await cluster.advance(360)
    (dead,) = await cluster.queue().dead_letters()
    assert (dead.reason, dead.delivery_count) == (MAX_DELIVERY_COUNT_EXCEEDED, 3)
    assert dead.message_id == message.job_id


async def test_a_dead_letter_outlives_its_pod(cluster: Cluster) -> None:
    await sent(cluster)
    pod = await start(cluster)
    await (await pod.hold()).dead_letter("OutOfMemory", "Too large.")
    pod.exit()
    cluster.server.remove("", "pods", pod.pod)
    (dead,) = await cluster.queue().dead_letters()
    assert dead.reason == "DeadLettered"
    assert "record" in dead.description


async def test_last_words_that_cannot_be_written_do_not_keep_the_job(cluster: Cluster) -> None:
    await sent(cluster)
    pod = await start(cluster)
    lease = await pod.hold()
    pod.log.mkdir()
    await lease.dead_letter("OutOfMemory", "Too large.")
    assert pod.queue.exit_status == 65


async def test_a_resubmit_that_died_half_way_is_finished_by_asking_again(
    cluster: Cluster,
) -> None:
    message, queue = make_message(), cluster.queue()
    await sent(cluster, message)
    for _ in range(3):
        (await start(cluster)).exit(KILLED)
        await cluster.advance(360)
    cluster.server.allowed = lambda call: call.verb != "delete"
    with pytest.raises(QueueUnavailable, match="403"):
        await queue.resubmit(message.job_id)
    assert await queue.depth() == QueueDepth(active=1, dead_lettered=1, scheduled=0)
    cluster.server.allowed = lambda call: True
    await queue.resubmit(message.job_id)
    assert await queue.depth() == QueueDepth(active=1, dead_lettered=0, scheduled=0)


async def test_a_dead_letter_can_be_resubmitted_again_and_again(cluster: Cluster) -> None:
    message, queue = make_message(), cluster.queue()
    await sent(cluster, message)
    for generation in range(3):
        for _ in range(3):
            (await start(cluster)).exit(KILLED)
            await cluster.advance(360)
        (dead,) = await queue.dead_letters()
        assert dead.message_id == message.job_id, generation
        await queue.resubmit(message.job_id)
    (job,) = cluster.server.all("batch", "jobs")
    assert job["metadata"]["name"] == f"{message.job_id}-r3"
    assert len(job["metadata"]["name"]) <= 63


async def test_a_withdrawn_message_takes_its_pod_along(cluster: Cluster) -> None:
    message, queue = make_message(), cluster.queue()
    await sent(cluster, message)
    pod = await start(cluster)
    lease = await pod.hold()
    await queue.withdraw(message.job_id)
    assert list(cluster.server.all("", "pods")) == []
    with pytest.raises(LeaseLost):
        await lease.renew()
    await pod.queue.finished()
    await queue.withdraw(message.job_id)  # nothing is left, and that is no error


async def test_withdrawing_leaves_dead_letters_alone(cluster: Cluster) -> None:
    message, queue = make_message(), cluster.queue()
    await sent(cluster, message)
    for _ in range(3):
        (await start(cluster)).exit(KILLED)
        await cluster.advance(360)
    await queue.withdraw(message.job_id)
    assert (await queue.depth()).dead_lettered == 1


async def test_completed_jobs_are_tidied_away_and_dead_letters_kept(cluster: Cluster) -> None:
    queue, done, dead = cluster.queue(), make_message(), make_message()
    await queue.send(done)
    await finish(cluster, queue, done.job_id)
    await queue.send(dead)
    for _ in range(3):
        (await start(cluster)).exit(KILLED)
        await cluster.advance(100)
    await queue.tend()
    assert len(list(cluster.server.all("batch", "jobs"))) == 2
    await cluster.advance(COMPLETED_KEPT_SECONDS)
    await queue.tend()
    (left,) = cluster.server.all("batch", "jobs")
    assert left["metadata"]["name"] == dead.job_id
    await cluster.advance(KEPT_SECONDS)
    assert list(cluster.server.all("batch", "jobs")) == [], "the cluster's own clean-up"


async def test_an_api_server_that_is_away_takes_no_job_from_its_worker(cluster: Cluster) -> None:
    await sent(cluster)
    pod = await start(cluster)
    lease = await pod.hold()
    cluster.server.allowed = lambda call: False
    await cluster.advance(20)
    assert await lease.renew() == cluster.now + timedelta(seconds=30)


async def test_a_pod_whose_job_is_gone_ends_without_counting(cluster: Cluster) -> None:
    await sent(cluster)
    (job,) = cluster.startable()
    pod = cluster.start(job)
    await cluster.queue().withdraw(job["metadata"]["name"])
    assert await pod.queue.lease(1, 0) == []
    await pod.queue.finished()
    assert pod.queue.exit_status == 75


async def test_a_lost_lease_ends_the_pod(cluster: Cluster) -> None:
    """The worker has dropped the job without settling: the pod must not idle for ever."""
    await sent(cluster)
    pod = cluster.start(cluster.startable()[0])
    await pod.queue.lease(1, 0)
    cluster.server.clock.advance(31)  # type: ignore[attr-defined]
    assert await pod.queue.lease(1, 0) == []
    await pod.queue.finished()
    assert pod.queue.exit_status == 75


async def test_a_process_outside_of_a_pod_cannot_lease(cluster: Cluster) -> None:
    with pytest.raises(SettingsError, match="DARKROOM_WORKER_JOB_NAME"):
        await cluster.queue().lease(1, 0)


@pytest.mark.parametrize("message_id", ["Upper", "a.b", "a" * 90, "späť", "-dash"])
async def test_any_id_can_be_sent_and_found(cluster: Cluster, message_id: str) -> None:
    queue = cluster.queue()
    job = await sent(cluster, Note(message_id))
    kubernetes_validate.validate(job, "1.36", strict=True)
    assert (await (await start(cluster)).hold()).message_id == message_id
    await queue.withdraw(message_id)
    assert (await queue.depth()).active == 0


async def test_a_message_that_no_annotation_holds_is_refused(cluster: Cluster) -> None:
    with pytest.raises(InvalidInput, match="204,801 bytes"):
        await cluster.queue().send(Note("big", b"x" * 204_801))


async def test_thousands_of_jobs_are_read_page_by_page(cluster: Cluster) -> None:
    first = await sent(cluster)
    for index in range(1_200):
        copy = json.loads(json.dumps(first))
        copy["metadata"].update(name=f"copy-{index}", uid=f"{index}")
        cluster.server.add("batch", "jobs", copy)
    cluster.server.calls.clear()
    assert (await cluster.queue().depth()).active == 1_201
    assert [call.verb for call in cluster.server.calls] == ["list"] * 3


async def test_a_pool_without_a_template_says_whose_fault_it_is(cluster: Cluster) -> None:
    with pytest.raises(QueueUnavailable, match=r"no PodTemplate darkroom-large .*chart"):
        await cluster.queue("large").send(make_message())
