"""Settings that cannot work are refused at the start."""

import subprocess
import sys
from pathlib import Path

import pytest

from darkroom.catalog import Pool, load_catalog
from darkroom.errors import SettingsError
from darkroom.settings import load
from tests.worker.site import write_catalog
from worker.settings import WorkerSettings


@pytest.fixture
def pool(tmp_path: Path) -> Pool:
    return load_catalog(write_catalog(tmp_path, max_gpu_seconds=60)).pools[0]


def test_the_grace_period_covers_the_longest_job_and_its_storing(pool: Pool) -> None:
    assert WorkerSettings().grace_for(pool) == 90


def test_a_grace_period_shorter_than_the_longest_job_is_refused(pool: Pool) -> None:
    assert WorkerSettings(grace_seconds=60).grace_for(pool) == 60
    with pytest.raises(SettingsError, match=r"DARKROOM_WORKER_GRACE_SECONDS .* max_gpu_seconds"):
        WorkerSettings(grace_seconds=59).grace_for(pool)


@pytest.mark.parametrize(
    ("name", "value"),
    [("DEVICE", "tpu"), ("ENGINE", "magic"), ("GRACE_SECONDS", "-1"), ("METRICS_PORT", "70000")],
)
def test_a_value_that_cannot_work_is_refused_by_name(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(f"DARKROOM_WORKER_{name}", value)
    with pytest.raises(SettingsError, match=f"DARKROOM_WORKER_{name}"):
        load(WorkerSettings)


def test_the_worker_does_not_import_torch_before_it_builds_its_engine() -> None:
    code = "import sys, worker.wiring, worker.loop; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
