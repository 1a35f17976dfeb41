"""The API as a process: what it imports, how it starts and stops, and being killed."""

import asyncio
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import httpx
import pytest

from darkroom.catalog import load_catalog
from darkroom.clock import SystemClock
from darkroom.imagestores.base import output_name
from darkroom.jobs import Job, JobImage, JobState, Provenance, Usage, claim, succeed
from darkroom.jobstores.base import JobFilter
from darkroom.settings import DarkroomSettings
from darkroom.wiring import Backends, open_backends
from tests.api.dying_api import EFFECTS
from tests.api.processes import ROOT, api_process, environment, next_url
from tests.api.stack import base64_picture, picture_file

BODY = {"prompt": "a lighthouse", "image": base64_picture()}
# What is outside the `api` extra, by import name. The finder makes them as good as not installed.
FOREIGN = ("torch", "diffusers", "transformers", "accelerate", "safetensors", "numpy", "azure")
FOREIGN += ("aiohttp", "lightkube", "typer", "rich", "httpx", "opentelemetry.sdk", "worker", "cli")
SERVE_AND_TELL = f"""
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name in {FOREIGN!r}:
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Absent())
from api.wiring import serve
status = serve()
print(*sys.modules)
sys.exit(status)
"""


def test_it_serves_with_the_api_extra_alone_and_without_torch(tmp_path: Path) -> None:
    with api_process(tmp_path, ("-c", SERVE_AND_TELL)) as api:
        job = httpx.post(f"{api.url}/v1/jobs", json=BODY).json()
        assert httpx.get(f"{api.url}/v1/jobs/{job['id']}").status_code == 200
        assert httpx.get(f"{api.url}/readyz").json()["checks"] == {
            "jobs": "ok",
            "queue local": "ok",
        }
        status, out = api.stop(signal.SIGTERM)
    assert status == 0
    modules = {name.partition(".")[0] for name in out.split()}
    assert "api" in modules
    assert not modules & set(FOREIGN)
    assert [line["job_id"] for line in api.lines if line["event"] == "admit"] == [job["id"]]


def test_a_backend_whose_packages_are_missing_is_named(tmp_path: Path) -> None:
    settings = environment(tmp_path, JOBSTORE_URL="aztables://account")
    ended = subprocess.run(
        [sys.executable, "-c", SERVE_AND_TELL],
        cwd=ROOT,
        env=settings,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ended.returncode == 2
    assert "pip install 'darkroom[azure]'" in ended.stderr


def test_settings_that_cannot_work_end_it_with_the_reason(tmp_path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "api"],
        cwd=ROOT,
        env=environment(tmp_path, API_HOST="0.0.0.0"),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ended.returncode == 2
    assert "DARKROOM_API_ALLOW_ANONYMOUS_REMOTE" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert ended.stdout == ""


def test_a_signal_lets_the_waiting_go_and_ends_with_0(tmp_path: Path) -> None:
    with api_process(tmp_path) as api:
        port = int(api.url.rpartition(":")[2])
        job = httpx.post(f"{api.url}/v1/jobs", json={"prompt": "a lighthouse"}).json()
        with socket.create_connection(("127.0.0.1", port), timeout=30) as line:
            asked = f"GET /v1/jobs/{job['id']}?wait=60 HTTP/1.1\r\nhost: localhost\r\n\r\n"
            line.sendall(asked.encode())
            for _ in range(3):  # by the time that these are answered, the first has been read
                httpx.get(f"{api.url}/livez")
            began = time.monotonic()
            status, out = api.stop(signal.SIGINT)
            answer = line.recv(65536)
    assert time.monotonic() - began < 30
    assert status == 0
    assert out == ""
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert b"NotStarted" in answer


def test_a_body_over_the_limit_is_refused_while_it_comes(tmp_path: Path) -> None:
    with api_process(tmp_path, API_MAX_BODY_BYTES="65536") as api:
        port = int(api.url.rpartition(":")[2])
        head = b"POST /v1/jobs HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
        with socket.create_connection(("127.0.0.1", port), timeout=20) as line:
            line.sendall(head + b"transfer-encoding: chunked\r\n\r\n")
            chunk = b"4000\r\n" + b" " * 0x4000 + b"\r\n"
            for _ in range(5):  # the document never ends, the answer comes all the same
                line.sendall(chunk)
            answer = line.recv(65536)
        assert answer.startswith(b"HTTP/1.1 413 ")
        assert httpx.get(f"{api.url}/livez").status_code == 200


def _backends(folder: Path) -> Backends:
    shared = DarkroomSettings.model_validate(
        {
            "queue_url": f"sqlite:///{folder}/queue.db",
            "jobstore_url": f"sqlite:///{folder}/jobs.db",
            "imagestore_url": f"file:///{folder}/images",
        }
    )
    return open_backends(shared, load_catalog(shared.catalog))


async def _consume(backends: Backends) -> Counter[str]:
    """Do every waiting message as a worker would; return how often each job was done."""
    done: Counter[str] = Counter()
    for queue in backends.queues.values():
        while leases := await queue.lease(10, 0.2):
            for lease in leases:
                job = await backends.jobs.get(lease.message_id)
                if job.status is JobState.NOT_STARTED:
                    await _do(backends, job)
                    done[job.id] += 1
                await lease.complete()
    return done


async def _do(backends: Backends, job: Job) -> None:
    now = SystemClock().now()
    claimed = await backends.jobs.compare_and_set(claim(job, now, 60), job.version)
    await backends.images.put(job.id, output_name(0), picture_file(), attempt=claimed.attempts)
    image = JobImage(index=0, width=64, height=64, sha256="ab" * 32, seed=1)
    ended = succeed(
        claimed, claimed.attempts, now, images=[image], usage=Usage(), provenance=Provenance()
    )
    await backends.jobs.compare_and_set(ended, claimed.version)


async def _jobs(backends: Backends) -> list[Job]:
    return list((await backends.jobs.list("local", JobFilter())).jobs)


async def test_killed_between_any_two_effects_it_loses_nothing_and_doubles_nothing(
    tmp_path: Path,
) -> None:
    """Guards the sends of `Sweeper.sweep` (api/sweeper.py).

    (Removing them makes this fail; tried.)
    """
    command = ("-m", "tests.api.dying_api")
    with api_process(tmp_path, command, API_UNSENT_SECONDS="3600") as dying:
        url = dying.url
        for number, effect in enumerate(EFFECTS):
            url = url if number == 0 else next_url(dying.process)
            with pytest.raises(httpx.TransportError):
                httpx.post(f"{url}/v1/jobs", json=BODY, headers={"Idempotency-Key": effect})
        assert dying.process.wait(20) == 0, "each was killed"
    backends = _backends(tmp_path)
    assert len(await _jobs(backends)) == len(EFFECTS) - 1, "before the record there is no job"
    with api_process(tmp_path, API_UNSENT_SECONDS="0", API_SWEEP_SECONDS="0.05") as api:
        async with asyncio.timeout(30):
            while await backends.jobs.unsent(SystemClock().now()):
                await asyncio.sleep(0.05)  # the sweeper is at it
        recorded = {job.id for job in await _jobs(backends)}
        assert await _consume(backends) == dict.fromkeys(recorded, 1)
        repeated = {
            effect: httpx.post(
                f"{api.url}/v1/jobs", json=BODY, headers={"Idempotency-Key": effect}
            ).json()["id"]
            for effect in EFFECTS
        }
        new = repeated.pop("inputs")
        assert set(repeated.values()) == recorded
        assert await _consume(backends) == {new: 1}
        jobs = await _jobs(backends)
        assert {job.id: (job.status, job.attempts) for job in jobs} == dict.fromkeys(
            {*recorded, new}, (JobState.SUCCEEDED, 1)
        )
    await backends.close()
