"""DiffusersEngine: any text-to-image, image-to-image or inpainting pipeline, on a CPU or a GPU.

On the same device a seed fixes its picture: alone, the same bytes each time; within a batch, to at
most one grey level, because kernels sum in another order.
"""

import gc
import os
import resource
import warnings
from collections.abc import Callable, Sequence
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
from darkroom.errors import ModelUnavailable, OutOfMemory
from worker.engines.base import (
    Engine,
    EngineDescription,
    EngineMemory,
    Footprint,
    GenerationStopped,
    GenerationTask,
    OnStep,
    Preview,
)
from worker.engines.diffusers_arguments import arguments, calls
from worker.engines.diffusers_devices import (
    choose_device,
    host_total_bytes,
    is_out_of_memory,
    noticing_loss,
)
from worker.engines.diffusers_estimates import Estimates, estimating
from worker.engines.diffusers_loras import LocateLora
from worker.engines.diffusers_models import HeldModel
from worker.engines.diffusers_previews import decode_small
from worker.engines.diffusers_sizes import expected_footprint

LIBRARIES = ("torch", "diffusers", "transformers")


class DiffusersEngine(Engine):
    """Pipelines on ``device`` (``auto``, ``cpu``, ``cuda`` or ``cuda:N``), and parked beside it.

    ``locate_lora`` finds adapters' files; ``torch_threads`` 0 leaves torch its own choice. Raises
    `SettingsError` for a device that is not there.
    """

    def __init__(self, device: str, locate_lora: LocateLora, torch_threads: int = 0) -> None:
        self._device = choose_device(device)
        self._locate_lora = locate_lora
        self._held: dict[str, HeldModel] = {}
        if torch_threads:
            torch.set_num_threads(torch_threads)
        # their warnings quote the part of a prompt that was cut off
        diffusers_logging.set_verbosity_error()
        transformers_logging.set_verbosity_error()
        diffusers_logging.disable_progress_bar()
        transformers_logging.disable_progress_bar()
        # a second adapter on a model is what we want
        warnings.filterwarnings("ignore", "Already found a `peft_config` attribute")

    def expect(self, model: Model, folder: Path) -> Footprint:
        """Sum what the headers of the folder's files say; of a held model, its tensors."""
        held = self._held.get(model.name)
        if held is not None:
            return held.ready_footprint
        return expected_footprint(model, folder, self._device)

    def load(self, model: Model, folder: Path) -> None:
        """Load ``folder``, or bring back the parked pipeline."""
        with noticing_loss():
            held = self._held.get(model.name)
            if held is None:
                self._held[model.name] = self._loaded(model, folder)
            elif not held.is_ready and not held.bring_back():
                raise self._out_of_memory(f"bringing back model {model.name}")

    def _loaded(self, model: Model, folder: Path) -> HeldModel:
        try:
            return HeldModel(model, folder, self._device, self._locate_lora)
        except (torch.OutOfMemoryError, RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
        raise self._out_of_memory(f"loading model {model.name}")

    def park(self, name: str) -> None:
        """Move the pipeline to the host's memory; unload one that has no other place.

        That is any on a CPU, and one whose weights rest on the host even when it is ready.
        """
        held = self._held.get(name)
        if held is None or not held.is_ready:
            return
        if self._device.type == "cpu" or held.is_offloaded:
            self.unload(name)
            return
        with noticing_loss():
            held.park()
            self._free_cache()

    def unload(self, name: str) -> None:
        """Free the pipeline and the device's cache."""
        if self._held.pop(name, None) is not None:
            with noticing_loss():
                self._free_cache()

    def generate(self, batch: Sequence[GenerationTask], on_step: OnStep) -> list[list[Image.Image]]:
        """Run ``batch`` in one pipeline call, or in as many as `calls` says."""
        name = batch[0].generation.model
        held = self._held.get(name)
        if held is None or not held.is_ready:
            raise ModelUnavailable(f"model {name} is not on the device", target="model")
        with noticing_loss():
            return self._generate(held, batch, on_step)

    def _generate(
        self, held: HeldModel, batch: Sequence[GenerationTask], on_step: OnStep
    ) -> list[list[Image.Image]]:
        made = self._made(held, batch, on_step)
        if isinstance(made, GenerationStopped):
            raise made.with_traceback(None)  # whose frames would keep the tensors alive
        if made is None:
            count = sum(len(task.seeds) for task in batch)
            raise self._out_of_memory(f"{count} pictures in one call")
        return made

    def _made(
        self, held: HeldModel, batch: Sequence[GenerationTask], on_step: OnStep
    ) -> list[list[Image.Image]] | GenerationStopped | None:
        """Return each task's pictures, why there are none, or None for want of memory.

        No error is raised from here then: its traceback would keep the tensors alive.
        """
        groups = calls(held.family, batch)
        made: dict[int, list[Image.Image]] = {}
        try:
            for turn, group in enumerate(groups):
                told = on_step if len(groups) == 1 else _in_turn(on_step, turn, len(groups))
                pictures = _call(held, [batch[index] for index in group], told)
                made |= dict(zip(group, pictures, strict=True))
            return [made[index] for index in range(len(batch))]
        except GenerationStopped as stopped:
            return stopped
        except (torch.OutOfMemoryError, RuntimeError, MemoryError) as error:
            if is_out_of_memory(error):
                return None
            raise
        finally:
            held.release()

    def footprint(self, name: str) -> Footprint:
        """Sum the model's parameters and buffers."""
        held = self._held.get(name)
        return Footprint() if held is None else held.footprint

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

    def _out_of_memory(self, what: str) -> OutOfMemory:
        self._free_cache()
        return OutOfMemory(f"{self._device} has too little memory for {what}")

    def _free_cache(self) -> None:
        gc.collect()
        if self._device.type == "cuda":
            torch.cuda.empty_cache()


StepDone = Callable[[Any, int, Any, dict[str, Any]], dict[str, Any]]
"""What a pipeline calls after each step: (itself, index, timestep, tensors) -> tensors."""


def _call(
    held: HeldModel, batch: Sequence[GenerationTask], on_step: OnStep
) -> list[list[Image.Image]]:
    """Return each task's pictures by one call of a pipeline."""
    asked = batch[0].generation
    pipeline = held.prepared(asked.kind, asked.scheduler, asked.loras)
    call = arguments(pipeline, batch)
    with torch.inference_mode(), estimating(pipeline.scheduler) as estimates:
        call["callback_on_step_end"] = _telling(held, batch, on_step, estimates)
        pictures = iter(pipeline(**call).images)
    return [[next(pictures) for _ in task.seeds] for task in batch]


def _in_turn(on_step: OnStep, turn: int, turns: int) -> OnStep:
    """Tell the steps of one of several calls as steps of the whole, which shows no preview."""

    def told(step: int, total: int, _: Preview) -> None:
        on_step(turn * total + step, turns * total, list)

    return told


def _telling(
    held: HeldModel, batch: Sequence[GenerationTask], on_step: OnStep, estimates: Estimates
) -> StepDone:
    """Return what a pipeline calls after each step: it tells ``on_step``, and changes nothing."""
    asked = batch[0].generation
    firsts = [*accumulate((len(task.seeds) for task in batch[:-1]), initial=0)]

    def step_done(pipe: Any, index: int, _: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        def preview() -> list[Image.Image]:
            if held.is_offloaded:  # decoding would push the denoiser off the device at each step
                return []
            shown = estimates.shown(tensors["latents"])
            return decode_small(pipe, shown, asked.height, asked.width, firsts)

        on_step(index + 1, getattr(pipe, "num_timesteps", asked.num_inference_steps), preview)
        return tensors

    return step_done
