"""Which GPUs and MIG slices this machine shows, told without torch: it takes seconds to import.

``nvidia-smi -L`` prints a line for each GPU, and an indented one for each of its MIG slices::

    GPU 0: NVIDIA A100-SXM4-40GB (UUID: GPU-5d5ba0d6-d33d-2b2c-524d-9e3d8d2b8a77)
      MIG 3g.20gb     Device  0: (UUID: MIG-c6d4f1ef-42e4-5de3-91c7-45d71c87eb3f)

CUDA uses one slice per process at most, and a GPU that is cut into slices only by them. Sources:
NVIDIA, "MIG User Guide", device names; "CUDA C++ Programming Guide", CUDA_VISIBLE_DEVICES.
"""

import re
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass

from darkroom.errors import SettingsError
from worker.settings import DeviceSettings

LIST_SECONDS = 30.0  # nvidia-smi wakes a driver that sleeps
VARIABLE = "DARKROOM_WORKER_DEVICES"
NONE = frozenset({"", "none", "void", "-1", "NoDevFiles"})
_GPU = re.compile(r"^GPU (\d+): (.+) \(UUID: (GPU-[0-9A-Za-z-]+)\)")
_SLICE = re.compile(r"^\s+MIG (\S+)\s+Device\s+\d+: \(UUID: (MIG-[0-9A-Za-z/-]+)\)")


@dataclass(frozen=True)
class Device:
    """A GPU or MIG slice: what CUDA_VISIBLE_DEVICES takes (a UUID), and a name for people."""

    uuid: str
    name: str


@dataclass(frozen=True)
class _Gpu:
    """A GPU as listed; ``slices`` are its MIG devices."""

    device: Device
    slices: tuple[Device, ...] = ()

    @property
    def usable(self) -> tuple[Device, ...]:
        return self.slices or (self.device,)


def chosen(wanted: str, told: DeviceSettings) -> Sequence[Device]:
    """Return the devices that ``wanted`` (``all`` or a number) asks for; none on a CPU machine.

    Raises `SettingsError` for more than there are.
    """
    devices = visible(told)
    if wanted == "all":
        return devices
    count = int(wanted)
    if count > max(1, len(devices)):
        raise SettingsError(
            f"{VARIABLE}: {count} devices were asked for, {len(devices)} are visible",
            target=VARIABLE,
        )
    return devices[:count]


def visible(told: DeviceSettings) -> Sequence[Device]:
    """Return every device that a process started from here could use, in CUDA's order."""
    gpus = _listed()
    if told.cuda is not None:
        return _named(told.cuda, gpus)
    if gpus:  # a container shows those alone that it was given
        return [device for gpu in gpus for device in gpu.usable]
    return _named(told.nvidia or "", gpus)


def parse(listing: str) -> Sequence[_Gpu]:
    """Return what ``nvidia-smi -L`` has printed."""
    gpus: list[_Gpu] = []
    for line in listing.splitlines():
        if found := _GPU.match(line):
            gpus.append(_Gpu(Device(uuid=found[3], name=found[2])))
        elif (found := _SLICE.match(line)) and gpus:
            gpu = gpus.pop()
            part = Device(uuid=found[2], name=f"{gpu.device.name} MIG {found[1]}")
            gpus.append(_Gpu(gpu.device, (*gpu.slices, part)))
    return gpus


def _listed() -> Sequence[_Gpu]:
    try:
        done = subprocess.run(
            ["nvidia-smi", "-L"],  # noqa: S607 -- where it lies differs from image to image
            capture_output=True,
            text=True,
            timeout=LIST_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ()
    return parse(done.stdout) if done.returncode == 0 else ()


def _named(words: str, gpus: Sequence[_Gpu]) -> Sequence[Device]:
    """Return the devices that a list of indices and UUIDs names.

    As CUDA does, it ends at the first that is not there; a UUID may be shortened.
    """
    devices: list[Device] = []
    for word in (part.strip() for part in words.split(",")):
        found = _find(word, gpus)
        if not found:
            break
        devices.extend(found)
    return list(dict.fromkeys(devices))


def _find(word: str, gpus: Sequence[_Gpu]) -> Sequence[Device]:
    if word in NONE:
        return ()
    if not gpus:
        return _unlisted(word)
    if word.isdigit():
        return gpus[int(word)].usable if int(word) < len(gpus) else ()
    for gpu in gpus:
        if gpu.device.uuid.startswith(word):
            return gpu.usable
    return [part for gpu in gpus for part in gpu.slices if part.uuid.startswith(word)][:1]


def _unlisted(word: str) -> Sequence[Device]:
    """Trust who set the variable where there is nothing to ask."""
    if word.isdigit():
        return (Device(uuid=word, name=f"GPU {word}"),)
    return (Device(uuid=word, name=word),) if word.startswith(("GPU-", "MIG-")) else ()
