"""The client commands against a real server."""

from pathlib import Path

import pytest

from cli.commands import app
from darkroom.client import Client
from tests.cli.conftest import Up, darkroom, here

PNG_MAGIC = b"\x89PNG\r\n\x1a\n"
COMMANDS = [command.name or command.callback.__name__ for command in app.registered_commands]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command: str) -> None:
    helped = here(command, "--help")
    assert helped.returncode == 0, helped.stderr
    assert f"darkroom {command}" in helped.stdout


def test_submit_saves_the_picture_and_says_where_the_time_went(server: Up, tmp_path: Path) -> None:
    out = tmp_path / "lighthouse.png"
    done = server.darkroom("submit", "a lighthouse", "--seed", "7", "--out", str(out))
    assert done.returncode == 0, done.stderr
    assert out.read_bytes().startswith(PNG_MAGIC)
    assert f"saved {out}" in done.stdout
    for part in ("queue ", "model load ", "denoise ", "store "):
        assert part in done.stdout


def test_several_pictures_get_numbered_names(server: Up, tmp_path: Path) -> None:
    out = tmp_path / "shape.png"
    done = server.darkroom("submit", "a shape", "--images", "3", "--out", str(out))
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "shape-1.png",
        "shape-2.png",
        "shape-3.png",
    ]


def test_the_options_of_submit_reach_the_job(server: Up) -> None:
    words = ["--steps", "5", "--width", "72", "--height", "80", "--guidance", "2.5"]
    words += ["--negative", "blur", "--seed", "11", "--tag", "set=a", "--tag", "who=me"]
    job_id = server.darkroom("submit", "a shape", "--no-wait", *words).stdout.strip()
    shown = server.darkroom("status", job_id)
    assert shown.returncode == 0, shown.stderr
    assert "set=a" in shown.stdout
    assert "who=me" in shown.stdout
    with Client(server.url) as client:
        asked = client.get(job_id).input
    assert (asked["num_inference_steps"], asked["width"], asked["height"]) == (5, 72, 80)
    assert (asked["guidance_scale"], asked["negative_prompt"], asked["seed"]) == (2.5, "blur", 11)
    listed = server.darkroom("list", "--tag", "set=a").stdout
    assert job_id in listed


def test_a_picture_can_be_painted_over(server: Up, tmp_path: Path) -> None:
    first = tmp_path / "first.png"
    second = tmp_path / "second.png"
    server.darkroom("submit", "a shape", "--out", str(first))
    done = server.darkroom(
        "submit", "a shape", "--image", str(first), "--strength", "0.5", "--out", str(second)
    )
    assert done.returncode == 0, done.stderr
    assert second.read_bytes().startswith(PNG_MAGIC)


def test_status_saves_the_pictures_of_a_finished_job(server: Up, tmp_path: Path) -> None:
    job_id = server.darkroom("submit", "a shape").stdout.split()[1]
    out = tmp_path / "later.png"
    shown = server.darkroom("status", job_id, "--out", str(out))
    assert shown.returncode == 0, shown.stderr
    assert "Succeeded" in shown.stdout
    assert out.read_bytes().startswith(PNG_MAGIC)


def test_list_shows_the_newest_first_over_several_pages(server: Up) -> None:
    ids = [
        server.darkroom("submit", "a shape", "--no-wait", "--tag", "pages=yes").stdout.strip()
        for _ in range(3)
    ]
    listed = server.darkroom("list", "--limit", "2", "--tag", "pages=yes").stdout
    assert [line.split()[0] for line in listed.splitlines()[1:]] == ids[:0:-1]


def test_cancel_ends_a_running_job(server: Up) -> None:
    job_id = server.darkroom("submit", "a shape", "--no-wait", "--steps", "200").stdout.strip()
    asked = server.darkroom("cancel", job_id)
    assert asked.returncode == 0, asked.stderr
    assert job_id in asked.stdout
    for _ in range(50):
        if "Canceled" in server.darkroom("status", job_id).stdout:
            return
    raise AssertionError("the job was never canceled")


def test_models_shows_what_may_be_asked_for(server: Up) -> None:
    shown = server.darkroom("models").stdout
    assert "tiny" in shown
    assert "inpainting" in shown
    assert "MIT" in shown


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["submit", "a shape", "--steps", "900"], "num_inference_steps"),
        (["submit", "a shape", "--width", "65"], "width"),
        (["submit", "a shape", "--model", "nobody"], "UnknownModel"),
        (["submit", "a shape", "--tag", "loose"], "--tag loose"),
        (["submit", "a shape", "--out", "no/such/folder/x.png"], "no/such/folder"),
        (["status", "local-nothing"], "JobNotFound"),
        (["cancel", "local-nothing"], "JobNotFound"),
        (["list", "--status", "Lost"], "status"),
    ],
)
def test_a_refusal_is_one_line_that_names_what_is_wrong(
    server: Up, words: list[str], named: str
) -> None:
    refused = server.darkroom(*words)
    assert refused.returncode != 0
    assert named in refused.stderr
    assert len(refused.stderr.splitlines()) == 1
    assert refused.stdout == ""


def test_a_server_that_is_not_there_is_named_with_its_cure() -> None:
    refused = here("list", "--url", "http://127.0.0.1:9")
    assert refused.returncode == 1
    assert "http://127.0.0.1:9" in refused.stderr
    assert "darkroom up" in refused.stderr


def test_an_address_that_is_none_is_refused() -> None:
    refused = here("list", "--url", "bogus")
    assert refused.returncode == 1
    assert "--url must start with http" in refused.stderr


def test_the_address_is_taken_from_the_environment(server: Up) -> None:
    shown = darkroom("models", url=server.url)
    assert shown.returncode == 0, shown.stderr
    assert "tiny" in shown.stdout


def test_a_setting_that_cannot_work_is_named() -> None:
    refused = darkroom("list", url="ftp://example.org")
    assert refused.returncode == 1
    assert "DARKROOM_URL" in refused.stderr
