"""DiffusersEngine: any text-to-image, image-to-image or inpainting pipeline, on a CPU or a GPU.

On the same device a seed fixes its picture: alone, the same bytes each time; within a batch, to at
most one grey level, because kernels sum in another order.
"""

import gc
import os
import resource
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from itertools import accumulate
from pathlib import Path
from typing import Any

import torch
from diffusers.utils import logging as diffusers_logging
from PIL import Image
from transformers.utils import logging as transformers_logging

from darkroom import __version__
from darkroom.catalog import Model
from darkroom.errors import InvalidInput, ModelUnavailable, OutOfMemory
from worker.engines.base import (
    Engine,
    EngineDescription,
    EngineMemory,
    Footprint,
    GenerationTask,
    OnStep,
)
from worker.engines.diffusers_devices import choose_device, host_total_bytes, noticing_loss
from worker.engines.diffusers_loras import LocateLora, attached
from worker.engines.diffusers_pipelines import arguments, derive, load_pipeline, make_scheduler
from worker.engines.diffusers_previews import decode_small
from worker.engines.diffusers_sizes import expected_bytes, footprint

LIBRARIES = ("torch", "diffusers", "transformers")
CPU_OUT_OF_MEMORY = "can't allocate memory"  # torch's CPU allocator has no error type of its own


@dataclass
class _Held:
    """A model in memory: its pipelines by kind, all on the same components."""

    model: Model
    pipelines: dict[str, Any]
    scheduler_config: dict[str, Any]
    is_ready: bool = True

    @property
    def loaded(self) -> Any:
        """The pipeline as its folder has it."""
        return self.pipelines["loaded"]


class DiffusersEngine(Engine):
    """Pipelines on ``device`` (``auto``, ``cpu``, ``cuda`` or ``cuda:N``), and parked beside it.

    ``locate_lora`` finds adapters' files; ``torch_threads`` 0 leaves torch its own choice. Raises
    `SettingsError` for a device that is not there.
    """

    def __init__(self, device: str, locate_lora: LocateLora, torch_threads: int = 0) -> None:
        self._device = choose_device(device)
        self._locate_lora = locate_lora
        self._held: dict[str, _Held] = {}
        if torch_threads:
            torch.set_num_threads(torch_threads)
        # their warnings quote the part of a prompt that was cut off
        diffusers_logging.set_verbosity_error()
        transformers_logging.set_verbosity_error()
        diffusers_logging.disable_progress_bar()
        transformers_logging.disable_progress_bar()

    def expect(self, model: Model, folder: Path) -> Footprint:
        """Sum what the headers of the folder's files say."""
        return Footprint(device_bytes=expected_bytes(model, folder, self._device))

    def load(self, model: Model, folder: Path) -> None:
        """Load ``folder``, or bring back the parked pipeline."""
        with noticing_loss():
            held = self._held.get(model.name)
            if held is None:
                self._load(model, folder)
            elif not held.is_ready:
                self._move(held, self._device)

    def _load(self, model: Model, folder: Path) -> None:
        try:
            pipeline = load_pipeline(model, folder, self._device)
        except torch.OutOfMemoryError:
            pipeline = None
        if pipeline is None:
            raise self._out_of_memory(f"loading model {model.name}")
        config = dict(pipeline.scheduler.config)
        self._held[model.name] = _Held(model, {"loaded": pipeline}, config)

    def park(self, name: str) -> None:
        """Move the pipeline to the host's memory; on a CPU, which has no other, unload it."""
        held = self._held.get(name)
        if held is None or not held.is_ready:
            return
        if self._device.type == "cpu":
            self.unload(name)
            return
        with noticing_loss():
            self._move(held, torch.device("cpu"))
            self._free_cache()

    def _move(self, held: _Held, device: torch.device) -> None:
        """Move the components to ``device``. On `OutOfMemory` all of them are on the host."""
        fits = True
        try:
            held.loaded.to(device)
        except torch.OutOfMemoryError:
            fits = False
        if not fits:
            held.loaded.to("cpu")
            raise self._out_of_memory(f"bringing back model {held.model.name}")
        held.is_ready = device == self._device

    def unload(self, name: str) -> None:
        """Free the pipeline and the device's cache."""
        if self._held.pop(name, None) is not None:
            with noticing_loss():
                self._free_cache()

    def generate(self, batch: Sequence[GenerationTask], on_step: OnStep) -> list[list[Image.Image]]:
        """Run ``batch`` in one pipeline call."""
        with noticing_loss():
            return self._generate(self._ready(batch[0].generation.model), batch, on_step)

    def _ready(self, name: str) -> _Held:
        held = self._held.get(name)
        if held is None or not held.is_ready:
            raise ModelUnavailable(f"model {name} is not on the device", target="model")
        return held

    def _generate(
        self, held: _Held, batch: Sequence[GenerationTask], on_step: OnStep
    ) -> list[list[Image.Image]]:
        asked = batch[0].generation
        pipeline = self._pipeline(held, asked.kind)
        pipeline.scheduler = make_scheduler(asked.scheduler, held.scheduler_config)
        call = arguments(pipeline, batch)
        firsts = [*accumulate((len(task.seeds) for task in batch[:-1]), initial=0)]

        def step_done(pipe: Any, index: int, _: Any, tensors: dict[str, Any]) -> dict[str, Any]:
            total = getattr(pipe, "num_timesteps", None) or asked.num_inference_steps
            latents, sides = tensors["latents"], (asked.height, asked.width)
            on_step(index + 1, total, lambda: decode_small(pipe, latents, *sides, firsts))
            return tensors

        with attached(pipeline, held.model, asked.loras, self._locate_lora):
            pictures = self._call(pipeline, call | {"callback_on_step_end": step_done})
        if pictures is None:
            raise self._out_of_memory(f"{len(call['prompt'])} pictures in one call")
        each = iter(pictures)
        return [[next(each) for _ in task.seeds] for task in batch]

    def footprint(self, name: str) -> Footprint:
        """Sum the model's parameters and buffers."""
        held = self._held.get(name)
        if held is None:
            return Footprint()
        sizes = footprint(held.loaded)
        if self._device.type != "cpu":
            return sizes
        return Footprint(device_bytes=sizes.device_bytes + sizes.host_bytes)

    def memory(self) -> EngineMemory:
        """Return the device's memory: torch's own share of a GPU, the process's of the host."""
        if self._device.type == "cuda":
            return EngineMemory(
                used_bytes=torch.cuda.memory_allocated(self._device),
                peak_bytes=torch.cuda.max_memory_allocated(self._device),
                total_bytes=torch.cuda.mem_get_info(self._device)[1],
                host_total_bytes=host_total_bytes(),
            )
        page = os.sysconf("SC_PAGE_SIZE")
        total = host_total_bytes()
        return EngineMemory(
            used_bytes=int(Path("/proc/self/statm").read_text().split()[1]) * page,
            peak_bytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
            total_bytes=total,
            host_total_bytes=total,
        )

    def describe(self) -> EngineDescription:
        """Return the device, with its name if it is a GPU, and the versions."""
        device = str(self._device)
        if self._device.type == "cuda":
            device = f"{device} ({torch.cuda.get_device_name(self._device)})"
        libraries = {name: version(name) for name in LIBRARIES}
        parks = self._device.type != "cpu"
        return EngineDescription(device, {"darkroom": __version__, **libraries}, parks)

    def _pipeline(self, held: _Held, kind: str) -> Any:
        if kind not in held.model.kinds:
            target = "mask_image" if kind == "inpainting" else "image"
            raise InvalidInput(f"model {held.model.name} does no {kind}", target=target)
        if kind not in held.pipelines:
            held.pipelines[kind] = derive(held.loaded, kind)
        return held.pipelines[kind]

    def _call(self, pipeline: Any, call: dict[str, Any]) -> list[Image.Image] | None:
        """Return the pictures, or None for want of memory.

        No error is raised from here then: its traceback would keep the tensors alive.
        """
        try:
            with torch.inference_mode():
                pictures: list[Image.Image] = pipeline(**call).images
                return pictures
        except torch.OutOfMemoryError:
            return None
        except RuntimeError as error:
            if CPU_OUT_OF_MEMORY in str(error):
                return None
            raise

    def _out_of_memory(self, what: str) -> OutOfMemory:
        self._free_cache()
        return OutOfMemory(f"{self._device} has too little memory for {what}")

    def _free_cache(self) -> None:
        gc.collect()
        if self._device.type == "cuda":
            torch.cuda.empty_cache()
