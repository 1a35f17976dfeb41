"""The API's metrics on a port of their own."""

import signal
import socket
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from api.settings import ApiSettings
from api.wiring import listen_for_metrics
from darkroom.errors import SettingsError
from tests.api.processes import api_process


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


def test_a_port_of_their_own_serves_the_metrics_and_nothing_else(tmp_path: Path) -> None:
    port = free_port()
    with api_process(tmp_path, API_METRICS_PORT=str(port)) as api:
        own = f"http://127.0.0.1:{port}"
        assert httpx.get(f"{api.url}/v1/models").status_code == 200
        answer = httpx.get(f"{own}/metrics")
        families = {one.name: one for one in text_string_to_metric_families(answer.text)}
        depths = {one.labels["pool"]: one.value for one in families["darkroom_queue_depth"].samples}
        assert depths == {"local": 0.0}
        assert "/v1/models" in answer.text, "the API's own requests are counted"
        assert "/metrics" not in answer.text, "scrapes are not"
        for path in ("/", "/v1/models", "/livez", "/docs"):
            assert httpx.get(f"{own}{path}").status_code == 404
        status, _ = api.stop(signal.SIGTERM)
        assert status == 0
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"{own}/metrics")


def test_the_port_is_none_unless_asked_for_and_named_when_it_is_taken() -> None:
    assert listen_for_metrics(ApiSettings()) is None
    with socket.create_server(("127.0.0.1", 0)) as taken:
        settings = ApiSettings(metrics_port=taken.getsockname()[1])
        with pytest.raises(SettingsError, match="cannot listen") as refused:
            listen_for_metrics(settings)
    assert refused.value.target == "DARKROOM_API_METRICS_PORT"
