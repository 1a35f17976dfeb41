"""DiffusersEngine: any text-to-image, image-to-image or inpainting pipeline, on a CPU or a GPU.

On the same device a seed fixes its picture: alone, the same bytes each time; within a batch, to at
most one grey level, because kernels sum in another order.
"""

import gc
import os
import resource
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from diffusers.utils import logging as diffusers_logging
from PIL import Image
from transformers.utils import logging as transformers_logging

from darkroom import __version__
from darkroom.catalog import Model
from darkroom.errors import InvalidInput, OutOfMemory
from worker.engines.base import Engine, EngineDescription, EngineMemory, GenerationTask, OnStep
from worker.engines.diffusers_devices import choose_device, noticing_loss
from worker.engines.diffusers_loras import LocateLora, attached
from worker.engines.diffusers_pipelines import arguments, derive, load_pipeline, make_scheduler

LIBRARIES = ("torch", "diffusers", "transformers")
CPU_OUT_OF_MEMORY = "can't allocate memory"  # torch's CPU allocator has no error type of its own


class DiffusersEngine(Engine):
    """One pipeline at a time on ``device`` (``auto``, ``cpu``, ``cuda`` or ``cuda:N``).

    ``locate_lora`` finds adapters' files; ``torch_threads`` 0 leaves torch its own choice. Raises
    `SettingsError` for a device that is not there.
    """

    def __init__(self, device: str, locate_lora: LocateLora, torch_threads: int = 0) -> None:
        self._device = choose_device(device)
        self._locate_lora = locate_lora
        self._model: Model | None = None
        self._pipelines: dict[str, Any] = {}  # by kind; all on the same components
        self._scheduler_config: dict[str, Any] = {}
        if torch_threads:
            torch.set_num_threads(torch_threads)
        # their warnings quote the part of a prompt that was cut off
        diffusers_logging.set_verbosity_error()
        transformers_logging.set_verbosity_error()
        diffusers_logging.disable_progress_bar()
        transformers_logging.disable_progress_bar()

    def load(self, model: Model, folder: Path) -> None:
        """Load ``folder`` in place of what is loaded."""
        with noticing_loss():
            self._load(model, folder)

    def _load(self, model: Model, folder: Path) -> None:
        self._free()
        try:
            pipeline = load_pipeline(model, folder, self._device)
        except torch.OutOfMemoryError:
            pipeline = None
        if pipeline is None:
            raise self._out_of_memory(f"loading model {model.name}")
        self._model = model
        self._scheduler_config = dict(pipeline.scheduler.config)
        self._pipelines = {"loaded": pipeline}

    def unload(self) -> None:
        """Free the pipeline and the device's cache."""
        with noticing_loss():
            self._free()

    def generate(self, batch: Sequence[GenerationTask], on_step: OnStep) -> list[list[Image.Image]]:
        """Run ``batch`` in one pipeline call."""
        with noticing_loss():
            return self._generate(batch, on_step)

    def _generate(
        self, batch: Sequence[GenerationTask], on_step: OnStep
    ) -> list[list[Image.Image]]:
        assert self._model is not None
        asked = batch[0].generation
        pipeline = self._pipeline(asked.kind)
        pipeline.scheduler = make_scheduler(asked.scheduler, self._scheduler_config)
        call = arguments(pipeline, batch)

        def step_done(pipe: Any, index: int, _: Any, tensors: dict[str, Any]) -> dict[str, Any]:
            total = getattr(pipe, "num_timesteps", None) or asked.num_inference_steps
            on_step(index + 1, total)
            return tensors

        with attached(pipeline, self._model, asked.loras, self._locate_lora):
            pictures = self._call(pipeline, call | {"callback_on_step_end": step_done})
        if pictures is None:
            raise self._out_of_memory(f"{len(call['prompt'])} pictures in one call")
        each = iter(pictures)
        return [[next(each) for _ in task.generation.seeds] for task in batch]

    def memory(self) -> EngineMemory:
        """Return the device's memory: torch's own share of a GPU, the process's of the host."""
        if self._device.type == "cuda":
            return EngineMemory(
                used_bytes=torch.cuda.memory_allocated(self._device),
                peak_bytes=torch.cuda.max_memory_allocated(self._device),
                total_bytes=torch.cuda.mem_get_info(self._device)[1],
            )
        page = os.sysconf("SC_PAGE_SIZE")
        return EngineMemory(
            used_bytes=int(Path("/proc/self/statm").read_text().split()[1]) * page,
            peak_bytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
            total_bytes=os.sysconf("SC_PHYS_PAGES") * page,
        )

    def describe(self) -> EngineDescription:
        """Return the device, with its name if it is a GPU, and the versions."""
        device = str(self._device)
        if self._device.type == "cuda":
            device = f"{device} ({torch.cuda.get_device_name(self._device)})"
        libraries = {name: version(name) for name in LIBRARIES}
        return EngineDescription(device, {"darkroom": __version__, **libraries})

    def _pipeline(self, kind: str) -> Any:
        assert self._model is not None
        if kind not in self._model.kinds:
            target = "mask_image" if kind == "inpainting" else "image"
            raise InvalidInput(f"model {self._model.name} does no {kind}", target=target)
        if kind not in self._pipelines:
            self._pipelines[kind] = derive(self._pipelines["loaded"], kind)
        return self._pipelines[kind]

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

    def _free(self) -> None:
        self._model = None
        self._pipelines = {}
        self._free_cache()

    def _free_cache(self) -> None:
        gc.collect()
        if self._device.type == "cuda":
            torch.cuda.empty_cache()
