"""azure-core's own poller of long-running operations drives a job to its end, unchanged."""

from pathlib import Path

import httpx
import pytest
from azure.core import PipelineClient
from azure.core.polling import LROPoller
from azure.core.polling.base_polling import (
    LROBasePolling,
    OperationResourcePolling,
)
from azure.core.rest import HttpRequest

from tests.live import live
from worker.engines.fake import FakeEngine


def poller(client: PipelineClient, url: str, **asked: object) -> LROPoller:
    request = HttpRequest("POST", f"{url}/v1/jobs", json={"prompt": "a lighthouse", **asked})
    first = client.send_request(request, _return_pipeline_response=True)
    assert first.http_response.status_code == 202
    method = LROBasePolling(timeout=1, lro_algorithms=[OperationResourcePolling()])
    return LROPoller(client, first, lambda answer: answer.http_response.json(), method)


def test_the_poller_drives_a_job_to_its_end(tmp_path: Path) -> None:
    with live(tmp_path, FakeEngine(step_seconds=0.1)) as slow:
        client = PipelineClient(slow.url)
        job = poller(client, slow.url, num_inference_steps=4)
        assert job.status() in ("NotStarted", "InProgress", "Running")
        done = job.result(60)
        assert job.status() == "Succeeded"
        assert done["status"] == "Succeeded"
        assert httpx.get(done["images"][0]["url"]).content.startswith(b"\x89PNG")


def test_the_poller_knows_a_job_that_failed(tmp_path: Path) -> None:
    def refuse(_: object) -> None:
        from darkroom.errors import UnsafeContent

        raise UnsafeContent("a filter refused the picture")

    with live(tmp_path, FakeEngine(fail=refuse)) as failing:
        job = poller(PipelineClient(failing.url), failing.url)
        with pytest.raises(Exception, match="UnsafeContent") as failed:
            job.result(60)
        assert job.status() == "Failed", failed
