"""The Engine port: what turns requests into pictures.

Threads
    Synchronous; every call comes from one dedicated thread, never from the event loop.
State
    Several models are held at a time, each *ready* on the device or *parked* in host memory; only
    a ready one generates. Who keeps them within a budget is `worker.model_cache.ModelCache`. A call
    that raised leaves every held model as it was, except after `DeviceLost`.
Determinism
    A picture is a function of its generation's parameters and its seed. The rest of the batch may
    move a pixel by at most one grey level on the same device.
Errors
    `InvalidInput` when the pipeline cannot take a parameter; `ModelUnavailable` when weights cannot
    be loaded, or a model is not ready; `OutOfMemory` with the device's cache emptied;
    `GenerationStopped` as raised by ``on_step``; `DeviceLost` when no later call can succeed in
    this process. Anything else that escapes is the pipeline's own error.
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

MAX_PREVIEW_PIXELS = 256
"""The longest side of a preview."""

Preview = Callable[[], list[Image]]
"""Returns what the latents show now: for each task a small picture of its first picture.

At most `MAX_PREVIEW_PIXELS` a side. Valid only within the ``on_step`` call that got it, and only on
the engine's thread, where it costs one decoding of a small picture. Empty where a preview would
cost more than a step, such as with offloaded weights, and where a batch takes several calls.
"""

OnStep = Callable[[int, int, Preview], None]
"""Called after each denoising step with (steps done, steps in all, what it looks like)."""


class GenerationStopped(Exception):
    """Raised by ``on_step`` to end a `generate` call early; nothing is returned."""


@dataclass(frozen=True)
class GenerationTask:
    """One job's share of a batch; the pictures it starts from as PNG files.

    ``pictures`` are the indices, among the generation's seeds, of what is to be made; None: all.
    """

    generation: Generation
    image: bytes | None = None
    mask_image: bytes | None = None
    pictures: tuple[int, ...] | None = None

    @property
    def seeds(self) -> tuple[int, ...]:
        """The seed of each picture to make, in the order of ``pictures``."""
        seeds = self.generation.seeds
        return seeds if self.pictures is None else tuple(seeds[index] for index in self.pictures)


@dataclass(frozen=True)
class EngineMemory:
    """Bytes on the device: in use, the most there were in use, and all there is (0: unknown).

    ``host_total_bytes`` is the memory that this process may take of the host (0: unknown).
    """

    used_bytes: int
    peak_bytes: int
    total_bytes: int
    host_total_bytes: int = 0


@dataclass(frozen=True)
class Footprint:
    """Bytes that one model's parameters and buffers take, by where they are."""

    device_bytes: int = 0
    host_bytes: int = 0


@dataclass(frozen=True)
class EngineDescription:
    """Where pictures are made, and by which versions of which libraries.

    ``parks``: host memory is a tier of its own, where a model off the device can wait. False on a
    CPU, whose device memory is the host's.
    """

    device: str
    libraries: Mapping[str, str]
    parks: bool = False


class Engine(ABC):
    """Holds models on the device and in host memory, and generates with those on the device."""

    @abstractmethod
    def expect(self, model: Model, folder: Path) -> Footprint:
        """Return about what ``model`` would take when ready, by its files' headers alone.

        Raises `ModelUnavailable` for a folder that is none of a pipeline.
        """

    @abstractmethod
    def load(self, model: Model, folder: Path) -> None:
        """Make ``model``, whose files are in ``folder``, ready beside the others.

        A parked model of that name comes back; a ready one stays as it is. Raises
        `ModelUnavailable`, `OutOfMemory`.
        """

    @abstractmethod
    def park(self, name: str) -> None:
        """Move the model from the device to host memory; where there is no such tier, unload it.

        Harmless when it is not ready.
        """

    @abstractmethod
    def unload(self, name: str) -> None:
        """Free the model's memory on every tier; harmless when it is not held."""

    @abstractmethod
    def generate(self, batch: Sequence[GenerationTask], on_step: OnStep) -> list[list[Image]]:
        """Return each task's pictures, in the order of its ``seeds``, by the first task's model.

        The tasks agree in model, kind, sides, steps, guidance, scheduler, strength and LoRAs, and
        the model is ready. ``on_step`` may raise `GenerationStopped`.
        """

    @abstractmethod
    def memory(self) -> EngineMemory:
        """Return what the device's memory holds."""

    @abstractmethod
    def footprint(self, name: str) -> Footprint:
        """Return what the held model takes, to the byte; nothing for one that is not held."""

    @abstractmethod
    def describe(self) -> EngineDescription:
        """Return the device and the library versions."""
