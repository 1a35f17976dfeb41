"""Attaching a model's adapters for one call, by catalog name, their files pinned by digest."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from diffusers.utils import USE_PEFT_BACKEND
from safetensors import SafetensorError

from darkroom.catalog import LoraSource, Model
from darkroom.errors import InvalidInput, ModelUnavailable
from darkroom.generation import Lora
from worker.engines.diffusers_devices import noticing_loss
from worker.engines.diffusers_pipelines import LOAD_ERRORS

LocateLora = Callable[[LoraSource], Path]
"""Returns the file of an adapter on this machine; raises `ModelUnavailable`."""


@contextmanager
def attached(
    pipeline: Any, model: Model, loras: Sequence[Lora], locate: LocateLora
) -> Iterator[None]:
    """Have ``loras`` act on ``pipeline`` while the block runs.

    Raises `InvalidInput` for a name that the model does not list, or a pipeline that takes no
    adapters; `ModelUnavailable` for a file that is missing or not the pinned one.
    """
    if not loras:
        yield
        return
    files = [(lora, _verified(model, lora, locate)) for lora in loras]
    if not hasattr(pipeline, "load_lora_weights"):
        raise InvalidInput(f"{type(pipeline).__name__} takes no LoRAs", target="loras")
    if not USE_PEFT_BACKEND:
        raise ModelUnavailable("LoRAs need the package peft, which is not installed")
    try:
        for lora, file in files:
            _load(pipeline, model, lora, file)
        names = [_adapter(lora) for lora in loras]
        pipeline.set_adapters(names, [lora.weight for lora in loras])
        yield
    finally:
        pipeline.unload_lora_weights()


def _load(pipeline: Any, model: Model, lora: Lora, file: Path) -> None:
    """Load one adapter. Safetensors only: pickles can run code."""
    try:
        if file.suffix != ".safetensors":
            raise ValueError("no safetensors file")
        with noticing_loss():
            pipeline.load_lora_weights(
                file.parent, weight_name=file.name, adapter_name=_adapter(lora)
            )
    except torch.OutOfMemoryError:
        raise
    except (*LOAD_ERRORS, SafetensorError) as error:
        raise ModelUnavailable(
            f"LoRA {lora.name} cannot be attached to model {model.name}: {type(error).__name__}",
            target="loras",
        ) from error


def _adapter(lora: Lora) -> str:
    """The adapter's name within torch, where a dot would separate modules."""
    return lora.name.replace(".", "_")


def _verified(model: Model, lora: Lora, locate: LocateLora) -> Path:
    for source in model.loras:
        if source.name == lora.name:
            file = locate(source)
            if source.sha256 is not None and _sha256(file) != source.sha256:
                raise ModelUnavailable(
                    f"LoRA {lora.name}: the file is not the one pinned in the catalog",
                    target="loras",
                )
            return file
    raise InvalidInput(f"model {model.name} has no LoRA called {lora.name}", target="loras")


def _sha256(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
