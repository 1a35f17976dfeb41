"""Logs are JSON lines that never hold content or secrets."""

import json
import logging
from collections.abc import Iterator

import pytest
import structlog

from darkroom.log import WITHHELD, configure, get_logger, prompt_hash


@pytest.fixture(autouse=True)
def _forget_configuration() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()
    root.handlers[:], root.level = handlers, level


def lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, object]]:
    return [json.loads(line) for line in capsys.readouterr().err.splitlines()]


def test_a_line_is_one_json_object_with_its_fields(capsys: pytest.CaptureFixture[str]) -> None:
    configure("info", "json", "api")
    get_logger().info("job_admitted", job_id="local-1", tenant="acme")
    (line,) = lines(capsys)
    assert line["event"] == "job_admitted"
    assert line["component"] == "api"
    assert line["level"] == "info"
    assert line["job_id"] == "local-1"
    assert str(line["timestamp"]).endswith("Z")


@pytest.mark.parametrize("field", sorted(WITHHELD))
@pytest.mark.parametrize("form", ["json", "console"])
def test_content_and_secrets_are_never_written(
    capsys: pytest.CaptureFixture[str], field: str, form: str
) -> None:
    configure("debug", form, "worker")
    get_logger().error("something", **{field: "hush"})
    written = capsys.readouterr().err
    assert "hush" not in written
    assert "[withheld]" in written


def test_a_field_bound_to_the_context_is_withheld_too(capsys: pytest.CaptureFixture[str]) -> None:
    configure("info", "json", "api")
    with structlog.contextvars.bound_contextvars(prompt="hush", job_id="local-1"):
        get_logger().info("bound")
    (line,) = lines(capsys)
    assert (line["prompt"], line["job_id"]) == ("[withheld]", "local-1")


def test_less_severe_lines_are_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    configure("warning", "json", "api")
    get_logger().info("quiet")
    get_logger().warning("loud")
    assert [line["event"] for line in lines(capsys)] == ["loud"]


def test_libraries_say_warnings_alone(capsys: pytest.CaptureFixture[str]) -> None:
    configure("debug", "json", "api")
    logging.getLogger("azure.core").info("GET https://x/?sig=hush")
    assert "hush" not in capsys.readouterr().err


def test_a_prompt_hash_matches_equal_prompts_and_tells_nothing() -> None:
    assert prompt_hash("a hill") == prompt_hash("a hill")
    assert prompt_hash("a hill") != prompt_hash("a hill ")
    assert len(prompt_hash("ünïcode ☕")) == 16
    assert int(prompt_hash("a hill"), 16) >= 0
