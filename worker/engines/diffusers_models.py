"""One model in memory: its pipelines by kind, its adapters, and where its weights are."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from darkroom.catalog import Model
from darkroom.errors import InvalidInput
from darkroom.families import Family
from darkroom.generation import Lora
from worker.engines.base import Footprint
from worker.engines.diffusers_arguments import family_of
from worker.engines.diffusers_devices import is_out_of_memory
from worker.engines.diffusers_loras import AttachedLoras, LocateLora
from worker.engines.diffusers_options import bring, is_offloaded
from worker.engines.diffusers_pipelines import derive, load_pipeline, make_scheduler
from worker.engines.diffusers_sizes import exact_footprint


class HeldModel:
    """The pipelines of one catalog entry, all on the same components.

    Loading raises `ModelUnavailable`, `DeviceLost`, and what `is_out_of_memory` knows.
    """

    def __init__(
        self, model: Model, folder: Path, device: torch.device, locate_lora: LocateLora
    ) -> None:
        self.model = model
        self.is_ready = True
        self._device = device
        self._loaded = load_pipeline(model, folder, device)
        self._pipelines: dict[str, Any] = {}
        self._scheduler_config = dict(self._loaded.scheduler.config)
        self._loras = AttachedLoras(self._loaded, model, locate_lora)
        self._size = exact_footprint(self._loaded, model, device)
        self._size_of = self._loras.changes

    @property
    def family(self) -> Family:
        """The family of the files' own pipeline class."""
        return family_of(self._loaded)

    @property
    def is_offloaded(self) -> bool:
        """Whether the weights rest in host memory even when the model is ready."""
        return is_offloaded(self.model, self._device)

    @property
    def ready_footprint(self) -> Footprint:
        """What the model takes when it is ready; adapters count."""
        if self._size_of != self._loras.changes:
            self._size_of = self._loras.changes
            self._size = exact_footprint(self._loaded, self.model, self._device)
        return self._size

    @property
    def footprint(self) -> Footprint:
        """What the model takes now."""
        ready = self.ready_footprint
        return ready if self.is_ready else Footprint(host_bytes=ready.device_bytes)

    def park(self) -> None:
        """Move the weights to host memory. Not for an offloaded model: they are there."""
        self._loaded.to("cpu")
        self.is_ready = False

    def bring_back(self) -> bool:
        """Move the weights to the device; False, and all of them on the host, when it is full."""
        try:
            bring(self._loaded, self.model, self._device)
            self.is_ready = True
        except (torch.OutOfMemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
        if not self.is_ready:
            self._loaded.to("cpu")
        return self.is_ready

    def prepared(self, kind: str, scheduler: str, loras: Sequence[Lora]) -> Any:
        """Return the pipeline of ``kind`` with a fresh scheduler and exactly these LoRAs acting.

        Raises `InvalidInput`, `ModelUnavailable`.
        """
        if kind not in self.model.kinds:
            target = "mask_image" if kind == "inpainting" else "image"
            raise InvalidInput(f"model {self.model.name} does no {kind}", target=target)
        if kind not in self._pipelines:
            self._pipelines[kind] = derive(self._loaded, kind)
        pipeline = self._pipelines[kind]
        pipeline.scheduler = make_scheduler(scheduler, self._scheduler_config)
        self._loras.use(loras)
        return pipeline

    def release(self) -> None:
        """Take back to the host what a call left on the device of an offloaded model.

        A pipeline of another kind than the loaded one does not do so itself: it was derived without
        the hooks.
        """
        if self.is_offloaded:
            self._loaded.maybe_free_model_hooks()
