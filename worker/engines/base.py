"""The Engine port: what turns requests into pictures.

Threads
    Synchronous; every call comes from one dedicated thread, never from the event loop.
State
    One model is loaded at a time. `generate` needs a loaded model; a call that raised leaves it
    usable, except after `DeviceLost`.
Determinism
    A picture is a function of its generation's parameters and its seed. The rest of the batch may
    move a pixel by at most one grey level on the same device.
Errors
    `InvalidInput` when the loaded pipeline cannot take a parameter; `ModelUnavailable` when weights
    cannot be loaded; `OutOfMemory` with the device's cache emptied; `GenerationStopped` as raised
    by ``on_step``; `DeviceLost` when no later call can succeed in this process. Anything else that
    escapes is the pipeline's own error.
Units
    Sides in pixels, memory in bytes; pictures are 8-bit RGB.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL.Image import Image

from darkroom.catalog import Model
from darkroom.generation import Generation

OnStep = Callable[[int, int], None]
"""Called after each denoising step with (steps done, steps in all)."""


class GenerationStopped(Exception):
    """Raised by ``on_step`` to end a `generate` call early; nothing is returned."""


@dataclass(frozen=True)
class GenerationTask:
    """One job's share of a batch; the pictures it starts from as PNG files."""

    generation: Generation
    image: bytes | None = None
    mask_image: bytes | None = None


@dataclass(frozen=True)
class EngineMemory:
    """Bytes on the device: in use, the most there were in use, and all there is (0: unknown)."""

    used_bytes: int
    peak_bytes: int
    total_bytes: int


@dataclass(frozen=True)
class EngineDescription:
    """Where pictures are made, and by which versions of which libraries."""

    device: str
    libraries: Mapping[str, str]


class Engine(ABC):
    """Loads one model at a time and generates with it."""

    @abstractmethod
    def load(self, model: Model, folder: Path) -> None:
        """Make ``model``, whose files are in ``folder``, the loaded one.

        Raises `ModelUnavailable`, `OutOfMemory`.
        """

    @abstractmethod
    def unload(self) -> None:
        """Free the loaded model's memory; harmless when there is none."""

    @abstractmethod
    def generate(self, batch: Sequence[GenerationTask], on_step: OnStep) -> list[list[Image]]:
        """Return each task's pictures, in the order of its generation's ``seeds``.

        The tasks agree in model, kind, sides, steps, guidance, scheduler, strength and LoRAs.
        ``on_step`` may raise `GenerationStopped`.
        """

    @abstractmethod
    def memory(self) -> EngineMemory:
        """Return what the device's memory holds."""

    @abstractmethod
    def describe(self) -> EngineDescription:
        """Return the device and the library versions."""
