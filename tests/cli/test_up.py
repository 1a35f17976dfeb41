"""`darkroom up` starts, stops and dies without leaving anything behind."""

import os
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path

from tests.cli.conftest import darkroom, gone, running_up


def wait_for(condition: Callable[[], bool], seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition never came true"
        time.sleep(0.05)


def test_one_interrupt_stops_every_process_cleanly(tmp_path: Path) -> None:
    with running_up(tmp_path, "--workers", "2") as up:
        children = up.children()
        assert len(children) == 3  # one API, two workers
        assert up.darkroom("submit", "a lighthouse").returncode == 0
        up.interrupt()
        status, output = up.end()
        assert status == 0, output
        assert "darkroom: stopped" in output
        assert gone(children)


def test_a_kill_of_up_itself_leaves_no_process(tmp_path: Path) -> None:
    with running_up(tmp_path) as up:
        children = up.children()
        assert len(children) == 2
        os.kill(up.process.pid, signal.SIGKILL)
        up.process.wait()
        wait_for(lambda: gone(children))


def test_a_worker_that_dies_ends_up_with_a_failure_that_names_it(tmp_path: Path) -> None:
    with running_up(tmp_path) as up:
        children = up.children()
        worker = next(child for child in children if "worker" in child.cmdline())
        worker.kill()
        status, output = up.end()
        assert status == 1
        assert "local ended by itself with status -9" in output
        assert gone(children)


def test_a_second_interrupt_does_not_wait_for_the_job_in_hand(tmp_path: Path) -> None:
    with running_up(tmp_path, step_seconds=60) as up:
        children = up.children()
        up.darkroom("submit", "a lighthouse", "--no-wait")
        up.wait_until_it_says("job_claimed")
        up.interrupt()
        up.wait_until_it_says("Ctrl-C again to kill")
        up.interrupt()
        status, _ = up.end()
        assert status == 130
        assert gone(children)


def test_a_quiet_log_does_not_hide_that_it_is_ready(tmp_path: Path) -> None:
    with running_up(tmp_path, DARKROOM_LOG_LEVEL="error") as up:
        up.interrupt()
        status, output = up.end()
    assert status == 0, output
    assert " | " not in "".join(up.said) + output


def test_a_taken_port_is_named_and_nothing_stays(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        ended = darkroom(
            "up", "--port", port, "--data-dir", str(tmp_path), DARKROOM_WORKER_ENGINE="fake"
        )
    assert ended.returncode == 1
    assert f"port {port}" in ended.stderr
    assert "api ended by itself" in ended.stderr


def test_a_queue_in_memory_is_refused_because_processes_cannot_share_it() -> None:
    ended = darkroom("up", "--port", "0", DARKROOM_QUEUE_URL="memory://")
    assert ended.returncode == 1
    assert "DARKROOM_QUEUE_URL" in ended.stderr


def test_a_catalog_that_is_not_there_is_named(tmp_path: Path) -> None:
    ended = darkroom("up", "--port", "0", "--catalog", str(tmp_path / "none.yaml"))
    assert ended.returncode == 1
    assert "none.yaml" in ended.stderr
    assert "Traceback" not in ended.stderr
