"""The Python client, against a real server and against things that are none."""

import hashlib
import threading
from collections.abc import Iterator
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from darkroom.client import Client, DarkroomClientError, ServerUnreachable, calls
from darkroom.jobs import JobState
from tests.cli.conftest import Up


@pytest.fixture
def client(server: Up) -> Iterator[Client]:
    with Client(server.url) as client:
        yield client


def test_a_job_is_submitted_awaited_and_fetched(client: Client) -> None:
    job = client.wait(client.submit("a lighthouse", num_images=2).id)
    assert job.status is JobState.SUCCEEDED
    for index, image in enumerate(job.images):
        assert hashlib.sha256(client.image(job.id, index)).hexdigest() == image.sha256


def test_waiting_ends_in_time_even_if_the_job_does_not(client: Client) -> None:
    job = client.submit("a lighthouse", num_inference_steps=200)
    assert not client.wait(job.id, timeout_seconds=0.2).status.is_terminal
    client.cancel(job.id)
    assert client.wait(job.id).status is JobState.CANCELED


def test_a_list_goes_on_over_pages(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calls, "MAX_PAGE_SIZE", 2)
    ids = [client.submit("a shape", tags={"over": "pages"}).id for _ in range(5)]
    newest_first = ids[::-1]
    assert [job.id for job in client.list(tag=("over", "pages"))] == newest_first
    assert [job.id for job in client.list(limit=3, tag=("over", "pages"))] == newest_first[:3]


def test_a_list_can_begin_after_a_moment(client: Client) -> None:
    first = client.submit("a shape")
    last = client.submit("a shape")
    between = first.created_at + (last.created_at - first.created_at) / 2
    found = [job.id for job in client.list(created_after=between)]
    assert found[:1] == [last.id]
    assert first.id not in found
    assert not list(client.list(created_after=last.created_at + timedelta(hours=1)))


def test_a_key_makes_one_job_of_two_submits(client: Client) -> None:
    twice = [client.submit("a shape", seed=3, idempotency_key="once").id for _ in range(2)]
    assert twice[0] == twice[1]


def test_a_refusal_carries_code_target_and_status(client: Client) -> None:
    with pytest.raises(DarkroomClientError) as refused:
        client.submit("a shape", num_images=99)
    assert refused.value.code == "InvalidParameter"
    assert refused.value.target == "num_images"
    assert refused.value.status == 400


def test_an_id_is_never_a_path(client: Client) -> None:
    with pytest.raises(DarkroomClientError) as refused:
        client.get("../models")
    assert refused.value.status == 404


class _NotDarkroom(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(502 if "jobs" in self.path else 200)
        self.end_headers()
        self.wfile.write(b"<html>a gateway</html>")

    def log_message(self, *_: object) -> None:
        return


@pytest.fixture
def gateway() -> Iterator[str]:
    server = HTTPServer(("127.0.0.1", 0), _NotDarkroom)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_a_gateway_that_answers_instead_is_told_apart(gateway: str) -> None:
    with Client(gateway) as client:
        with pytest.raises(DarkroomClientError) as refused:
            client.get("local-1")
        assert (refused.value.code, refused.value.status) == ("UnexpectedAnswer", 502)
        with pytest.raises(DarkroomClientError) as unreadable:
            client.models()
        assert unreadable.value.code == "UnexpectedAnswer"


def test_an_address_where_nothing_answers_is_named() -> None:
    with Client("http://127.0.0.1:9") as client, pytest.raises(ServerUnreachable) as refused:
        client.models()
    assert "http://127.0.0.1:9" in refused.value.message
