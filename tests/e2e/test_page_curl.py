"""Copy as curl: what is on the clipboard runs in a real shell and asks for the same picture."""

import json
import os
import subprocess
from pathlib import Path

import pytest
from PIL import Image
from playwright.sync_api import Page, expect

from tests.e2e.asking import ask, await_state
from tests.e2e.browser import Visit

HOSTILE = """it's "$HOME" `id` \\ $(touch ran)
; touch ran # 'é', 100 % & <b>!"""


@pytest.fixture
def copying(seen: Visit) -> Visit:
    seen.context.grant_permissions(["clipboard-read", "clipboard-write"])
    return seen


def _copied(page: Page, within: str) -> str:
    button = page.locator(within).get_by_role("button", name="Copy as curl")
    button.click()
    expect(page.locator("#copied")).to_contain_text("clipboard")
    return str(page.evaluate("navigator.clipboard.readText()"))


def _run(command: str, folder: Path) -> dict[str, object]:
    """Run the command in a shell of its own; return the job that it made."""
    done = subprocess.run(
        ["/bin/sh", "-c", command],
        cwd=folder,
        env={"PATH": os.defpath, "HOME": "/nowhere"},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert not (folder / "ran").exists()
    job: dict[str, dict[str, object]] = json.loads(done.stdout)
    return job["input"]


def test_the_forms_command_survives_every_character(copying: Visit, tmp_path: Path) -> None:
    page = copying.page
    page.fill("#prompt", HOSTILE)
    page.locator("#more").evaluate("more => { more.open = true; }")
    page.fill("#num_inference_steps", "1")
    page.fill("#seed", "77")
    made = _run(_copied(page, "#request"), tmp_path)
    assert made["prompt"] == HOSTILE
    assert (made["seed"], made["num_inference_steps"]) == (77, 1)


def test_a_finished_jobs_command_makes_it_again(copying: Visit, tmp_path: Path) -> None:
    page = copying.page
    ask(page, "two of these", num_images=2, num_inference_steps=1, seed=5, width=64)
    await_state(page, "Done")
    made = _run(_copied(page, "#facts"), tmp_path)
    for name, value in {"prompt": "two of these", "num_images": 2, "seed": 5, "width": 64}.items():
        assert made[name] == value


def test_a_picture_goes_as_a_form_by_its_files_name(copying: Visit, tmp_path: Path) -> None:
    page = copying.page
    name = 'it\'s;a "name", ok.png'
    Image.new("RGB", (96, 64), "navy").save(tmp_path / name)
    page.locator("#from-picture").evaluate("part => { part.open = true; }")
    page.set_input_files("#image", tmp_path / name)
    expect(page.locator("#image-name")).to_contain_text("96 \u00d7 64")
    page.fill("#prompt", "@file <not a file>")
    made = _run(_copied(page, "#request"), tmp_path)
    assert made["prompt"] == "@file <not a file>"
    assert (made["width"], made["height"], made["strength"]) == (96, 64, 0.8)


def test_the_command_never_holds_the_key(copying: Visit) -> None:
    page = copying.page
    page.evaluate("sessionStorage.setItem('darkroom-credential', 'dk_very-secret')")
    page.fill("#prompt", "a lock")
    command = _copied(page, "#request")
    assert "dk_very-secret" not in command
    assert '-H "Authorization: Bearer $DARKROOM_API_KEY"' in command


def test_without_a_clipboard_the_command_is_shown(seen: Visit) -> None:
    page = seen.page
    page.evaluate("() => { navigator.clipboard.writeText = () => Promise.reject(new Error()); }")
    page.fill("#prompt", "a pen")
    page.click("#copy-curl")
    shown = page.locator("#command-text")
    expect(shown).to_be_focused()
    assert "a pen" in shown.input_value()
    page.keyboard.press("Escape")
    expect(shown).to_be_hidden()
    expect(page.locator("#copy-curl")).to_be_focused()
