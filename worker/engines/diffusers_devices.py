"""The device that pipelines run on: choosing it, and knowing when it is of no more use."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from darkroom.errors import DeviceLost, SettingsError

LOST = (
    "device-side assert triggered",
    "an illegal memory access was encountered",
    "an illegal instruction was encountered",
    "misaligned address",
    "invalid program counter",
    "operation not supported on global/shared address space",
    "hardware stack error",
    "the launch timed out and was terminated",
    "unspecified launch failure",
    "uncorrectable ECC error encountered",
    "uncorrectable NVLink error detected during the execution",
    "unknown error",
)
"""What CUDA says when every later call of the process fails alike.

Source: CUDA Runtime API, ``cudaError_t``: "the process must be terminated and relaunched".
"""


def choose_device(name: str) -> torch.device:
    """Return the device of that name; ``auto`` is the first GPU, or the CPU without one.

    Raises `SettingsError` for a GPU that is not there.
    """
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name == "auto":
        return torch.device("cuda:0" if gpus else "cpu")
    device = torch.device("cuda:0" if name == "cuda" else name)
    if device.type == "cuda" and (device.index or 0) >= gpus:
        raise SettingsError(
            f"device {name} is not there: torch sees {gpus} GPUs", target="DARKROOM_WORKER_DEVICE"
        )
    return device


@contextmanager
def noticing_loss() -> Iterator[None]:
    """Raise `DeviceLost` for an error of the block after which the GPU cannot be used.

    Errors of a single call, such as too large a launch, pass as they are.
    """
    try:
        yield
    except RuntimeError as error:
        text = str(error)
        said = next((words for words in LOST if f"CUDA error: {words}" in text), None)
        if said is None:
            raise
        raise DeviceLost(f"the GPU failed: {said}") from error
