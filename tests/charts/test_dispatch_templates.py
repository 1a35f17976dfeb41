"""What the chart gives Kubernetes-native dispatch is what the adapter makes Jobs of."""

import kubernetes_validate
import pytest
from lightkube.resources.core_v1 import PodTemplate

from darkroom.queues.kubernetes_manifests import CONTAINER, Content, make_job
from tests.charts.helm import Object, named, of_kind, render
from tests.charts.validation import MINORS
from tests.samples import NOW, make_message

SCENARIO = "kubernetes-dispatch"


def job_of(template: Object) -> Object:
    """Return the Job that a send makes of a rendered PodTemplate."""
    made: Object = make_job(
        "local-1",
        Content.of_message(make_message(), NOW),
        PodTemplate.from_dict(template),
        "small",
        max_delivery_count=6,
    ).to_dict()
    return made


def rendered(**values: object) -> tuple[list[Object], list[Object]]:
    objects = render("darkroom", values, scenario=SCENARIO)
    return objects, of_kind(objects, "PodTemplate")


@pytest.mark.parametrize("minor", MINORS)
def test_the_jobs_that_come_of_the_templates_are_valid(minor: str) -> None:
    _, templates = rendered()
    assert len(templates) == 2
    for template in templates:
        kubernetes_validate.validate(job_of(template), minor, strict=True)


def test_a_worker_learns_its_job_and_its_pool_and_never_its_neighbours() -> None:
    objects, templates = rendered()
    for template in templates:
        (worker,) = template["template"]["spec"]["containers"]
        assert worker["name"] == CONTAINER, "the failure policy looks at this container alone"
        env = {each["name"]: each for each in worker["env"]}
        path = env["DARKROOM_WORKER_JOB_NAME"]["valueFrom"]["fieldRef"]["fieldPath"]
        assert path == "metadata.labels['batch.kubernetes.io/job-name']"
        assert env["DARKROOM_WORKER_POD_NAME"]["valueFrom"]["fieldRef"]["fieldPath"] == (
            "metadata.name"
        )
        url = env["DARKROOM_QUEUE_URL"]["value"]
        prefix = url.rpartition("/")[2]
        pool = env["DARKROOM_WORKER_POOL"]["value"]
        assert template["metadata"]["name"] == f"{prefix}-{pool}"
        assert url == f"kubernetes://{template['metadata']['namespace']}/{prefix}"
        assert "terminationMessagePath" not in worker
        assert env["DARKROOM_WORKER_DELETION_COST"]["value"] == "false", "nothing scales it in"
        queue = template["metadata"]["labels"]["kueue.x-k8s.io/queue-name"]
        assert (
            named(objects, "LocalQueue", queue)["metadata"]["namespace"]
            == (template["metadata"]["namespace"])
        )


def test_with_kueue_jobs_are_suspended_and_without_they_start_at_once() -> None:
    _, templates = rendered()
    assert {job_of(each)["spec"]["suspend"] for each in templates} == {True}
    _, templates = rendered(kueue={"enabled": False})
    jobs = [job_of(each) for each in templates]
    assert {job["spec"]["suspend"] for job in jobs} == {False}
    assert not any("kueue" in label for job in jobs for label in job["metadata"]["labels"])
