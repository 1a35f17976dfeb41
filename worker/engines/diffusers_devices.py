"""The device that pipelines run on: choosing it, and knowing when it is of no more use."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from darkroom.catalog import Model
from darkroom.errors import DeviceLost, SettingsError

CGROUP_LIMITS = (
    Path("/sys/fs/cgroup/memory.max"),
    Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
)
"""Where a container sees its memory limit: control groups of version 2, and of version 1."""

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


OUT_OF_MEMORY = (
    "CUDA error: out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
    "can't allocate memory",
)
"""What is said for want of memory outside of torch's own allocator, and by the one for CPUs."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether ``error`` says that the device has too little memory."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    text = str(error) if isinstance(error, RuntimeError) else ""
    return any(words in text for words in OUT_OF_MEMORY)


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


def host_total_bytes() -> int:
    """Return the memory this process may take: the machine's, or its control group's if less."""
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    for file in CGROUP_LIMITS:
        try:
            total = min(total, int(file.read_text()))
        except (OSError, ValueError):  # no such group, or "max"
            continue
    return total


def dtype_on(device: torch.device, model: Model) -> torch.dtype:
    """Return the catalog's dtype; on a CPU always float32: halves take minutes a picture there."""
    dtype = torch.float32 if device.type == "cpu" else getattr(torch, model.dtype)
    assert isinstance(dtype, torch.dtype)
    return dtype


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
