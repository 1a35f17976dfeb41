"""One worker process on each GPU or MIG slice that this machine shows."""

import asyncio
import os
import signal
import stat
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from darkroom.errors import SettingsError
from emulators.processes import free_port
from tests.worker.probing import get
from tests.worker.processes import Machine, WorkerProcess
from tests.worker.site import eventually
from worker.devices import Device, chosen, visible
from worker.settings import DeviceSettings
from worker.supervisor import Supervisor

TWO_GPUS = """\
GPU 0: NVIDIA H100 80GB HBM3 (UUID: GPU-5d5ba0d6-d33d-2b2c-524d-9e3d8d2b8a77)
GPU 1: NVIDIA H100 80GB HBM3 (UUID: GPU-c1f2a3b4-0000-1111-2222-333344445555)
"""
SLICED = """\
GPU 0: NVIDIA A100-SXM4-40GB (UUID: GPU-5d5ba0d6-d33d-2b2c-524d-9e3d8d2b8a77)
  MIG 3g.20gb     Device  0: (UUID: MIG-c6d4f1ef-42e4-5de3-91c7-45d71c87eb3f)
  MIG 1g.5gb+me   Device  1: (UUID: MIG-cba663e8-9bed-5b25-b243-5985ef7c9beb)
GPU 1: NVIDIA A100-SXM4-40GB (UUID: GPU-c1f2a3b4-0000-1111-2222-333344445555)
"""
OLD_SLICES = """\
GPU 0: A100-SXM4-40GB (UUID: GPU-5d5ba0d6-d33d-2b2c-524d-9e3d8d2b8a77)
  MIG 3g.20gb Device 0: (UUID: MIG-GPU-5d5ba0d6-d33d-2b2c-524d-9e3d8d2b8a77/2/0)
"""
WHOLE = ["GPU-5d5ba0d6-d33d-2b2c-524d-9e3d8d2b8a77", "GPU-c1f2a3b4-0000-1111-2222-333344445555"]
SLICES = ["MIG-c6d4f1ef-42e4-5de3-91c7-45d71c87eb3f", "MIG-cba663e8-9bed-5b25-b243-5985ef7c9beb"]


def told(**variables: str) -> DeviceSettings:
    return DeviceSettings.model_validate(variables)


@pytest.fixture
def driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Put an `nvidia-smi` on PATH that prints a listing, or with None one that fails."""
    folder = tmp_path / "bin"
    folder.mkdir()

    def install(listing: str | None) -> Path:
        program = folder / "nvidia-smi"
        says = f"cat <<'END'\n{listing}END\n" if listing is not None else "exit 9\n"
        program.write_text(f'#!/bin/sh\n[ "$1" = -L ] || exit 2\n{says}')
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
        monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
        return folder

    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    return install


def uuids(devices: Any) -> list[str]:
    return [device.uuid for device in devices]


def test_every_gpu_is_a_device(driver: Any) -> None:
    driver(TWO_GPUS)
    assert uuids(visible(told())) == WHOLE
    assert visible(told())[0].name == "NVIDIA H100 80GB HBM3"


def test_a_gpu_cut_into_slices_is_its_slices_and_no_device_itself(driver: Any) -> None:
    driver(SLICED)
    assert uuids(visible(told())) == [*SLICES, WHOLE[1]]
    assert visible(told())[1].name == "NVIDIA A100-SXM4-40GB MIG 1g.5gb+me"


def test_slices_of_old_drivers_are_read_too(driver: Any) -> None:
    driver(OLD_SLICES)
    assert uuids(visible(told())) == [f"MIG-{WHOLE[0]}/2/0"]


@pytest.mark.parametrize(
    ("cuda", "expected"),
    [
        ("1", [WHOLE[1]]),
        ("1,0", [WHOLE[1], *SLICES]),
        (SLICES[1], [SLICES[1]]),
        ("GPU-c1f2", [WHOLE[1]]),
        ("0,7,1", SLICES),  # CUDA sees nothing behind an index that is not there
        ("", []),
        ("-1", []),
        ("NoDevFiles", []),
    ],
)
def test_cuda_visible_devices_chooses(driver: Any, cuda: str, expected: list[str]) -> None:
    driver(SLICED)
    assert uuids(visible(told(CUDA_VISIBLE_DEVICES=cuda, NVIDIA_VISIBLE_DEVICES="all"))) == expected


@pytest.mark.parametrize("listing", [None, "No devices found.\n"])
@pytest.mark.parametrize(
    ("nvidia", "expected"),
    [("all", []), ("none", []), ("void", []), (",".join(WHOLE), WHOLE), (SLICES[0], [SLICES[0]])],
)
def test_without_a_driver_to_ask_the_containers_own_list_counts(
    driver: Any, listing: str | None, nvidia: str, expected: list[str]
) -> None:
    driver(listing)
    assert uuids(visible(told(NVIDIA_VISIBLE_DEVICES=nvidia))) == expected


def test_as_many_as_asked_for_are_taken_and_more_than_there_are_refused(driver: Any) -> None:
    driver(SLICED)
    assert uuids(chosen("2", told())) == SLICES
    assert len(chosen("all", told())) == 3
    with pytest.raises(SettingsError, match=r"DEVICES: 4 devices .* 3 are visible"):
        chosen("4", told())


def test_a_cpu_machine_has_one_process_and_no_more(driver: Any) -> None:
    assert chosen("all", told()) == chosen("1", told()) == []
    with pytest.raises(SettingsError, match="0 are visible"):
        chosen("2", told())


def test_a_worker_knows_its_one_gpu() -> None:
    assert told(CUDA_VISIBLE_DEVICES=SLICES[0]).single == SLICES[0]
    assert told(NVIDIA_VISIBLE_DEVICES=WHOLE[0]).single == WHOLE[0]
    assert told(NVIDIA_VISIBLE_DEVICES=",".join(WHOLE)).single == ""
    assert told(CUDA_VISIBLE_DEVICES="0", NVIDIA_VISIBLE_DEVICES=WHOLE[0]).single == ""


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def url(port: int) -> str:
    return f"http://127.0.0.1:{port}"


def lines(worker: WorkerProcess, event: str) -> list[dict[str, Any]]:
    return [line for line in worker.events if line["event"] == event]


async def several(worker: WorkerProcess, event: str, count: int) -> list[dict[str, Any]]:
    async def there() -> bool:
        return len(lines(worker, event)) >= count

    await eventually(there, seconds=30)
    return lines(worker, event)


async def test_each_device_has_a_process_that_sees_it_alone_and_all_leave_together(
    driver: Any, machine: Machine
) -> None:
    machine.settings["PATH"] = f"{driver(SLICED)}:/usr/bin:/bin"
    port = free_port()
    async with machine.worker(devices="2", metrics_port=port) as supervisor:
        started = await several(supervisor, "worker_started", 2)
        assert "does not answer" in (await asyncio.to_thread(get, f"{url(port)}/readyz"))[1]
        ready = await several(supervisor, "ready", 2)
        assert {line["gpu"] for line in ready} == set(SLICES)
        assert await asyncio.to_thread(get, f"{url(port)}/readyz") == (200, "ok\n")
        assert await asyncio.to_thread(get, f"{url(port)}/livez") == (200, "ok\n")
        _, text = await asyncio.to_thread(get, f"{url(port)}/metrics")
        seen = {environment(line["pid"])["CUDA_VISIBLE_DEVICES"] for line in started}
        supervisor.signal(signal.SIGTERM)
        assert await supervisor.exit_code() == 0
    on = {
        (sample.labels["worker"], sample.labels["gpu"])
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == "darkroom_worker_info"
    }
    assert on == {("0", SLICES[0]), ("1", SLICES[1])}
    assert seen == set(SLICES) == {line["gpu"] for line in started}
    assert len(lines(supervisor, "drained")) == 2
    assert not any(alive(line["pid"]) for line in started)


async def test_a_worker_that_dies_starts_again_and_its_neighbour_goes_on(
    driver: Any, machine: Machine
) -> None:
    machine.settings["PATH"] = f"{driver(TWO_GPUS)}:/usr/bin:/bin"
    async with machine.worker(devices="all") as supervisor:
        first, second = await several(supervisor, "worker_started", 2)
        os.kill(first["pid"], signal.SIGKILL)
        *_, again = await several(supervisor, "worker_started", 3)
        (failed,) = lines(supervisor, "worker_failed")
        assert again["gpu"] == first["gpu"] == failed["gpu"]
        assert again["pid"] != first["pid"]
        assert alive(second["pid"])
        await several(supervisor, "ready", 2)
        supervisor.signal(signal.SIGTERM)
        assert await supervisor.exit_code() == 0


async def test_workers_end_when_their_supervisor_is_killed(driver: Any, machine: Machine) -> None:
    machine.settings["PATH"] = f"{driver(TWO_GPUS)}:/usr/bin:/bin"
    async with machine.worker(devices="2") as supervisor:
        started = await several(supervisor, "worker_started", 2)
        await several(supervisor, "ready", 2)
        supervisor.signal(signal.SIGKILL)

        async def gone() -> bool:
            return not any(alive(line["pid"]) for line in started)

        await eventually(gone, seconds=20)


def environment(pid: int) -> dict[str, str]:
    words = Path(f"/proc/{pid}/environ").read_bytes().decode().split("\0")
    return dict(word.split("=", 1) for word in words if "=" in word)


def alive(pid: int) -> bool:
    """Whether the process runs; one that was ended but not yet waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


GPU = Device(uuid=WHOLE[0], name="a GPU")


async def test_the_pause_before_a_new_start_doubles_up_to_its_longest(tmp_path: Path) -> None:
    """A child that notes when it starts and fails thrice, as with a lost device, then ends."""
    notes = tmp_path / "starts"
    code = (
        "import pathlib, sys, time; notes = pathlib.Path(sys.argv[1]);"
        "notes.open('a').write(f'{time.monotonic()}\\n');"
        "sys.exit(len(notes.read_text().split()) < 5)"
    )
    command = (sys.executable, "-S", "-c", code, str(notes))
    keeper = Supervisor({GPU: {}}, command, first_pause=0.2, longest_pause=0.4)
    assert await keeper.run() == 0
    starts = [float(line) for line in notes.read_text().split()]
    pauses = [after - before for before, after in pairwise(starts)]
    assert len(pauses) == 4
    assert pauses[0] >= 0.2
    assert all(pause >= 0.4 for pause in pauses[1:])
    assert max(pauses) < 1.5, "it must not go on doubling"


async def test_a_stop_ends_the_pause_and_starts_nothing_more(tmp_path: Path) -> None:
    keeper = Supervisor({GPU: {}}, (sys.executable, "-S", "-c", "exit(1)"), first_pause=60)
    running = asyncio.create_task(keeper.run())

    async def paused() -> bool:
        return keeper.pausing == 1

    await eventually(paused)
    os.kill(os.getpid(), signal.SIGTERM)
    assert await asyncio.wait_for(running, 5) == 1
