"""How much memory a pipeline takes: before it is loaded, by its files; afterwards, to the byte."""

import json
import math
import re
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from darkroom.catalog import Model
from darkroom.errors import ModelUnavailable
from worker.engines.base import Footprint
from worker.engines.diffusers_devices import dtype_on
from worker.engines.diffusers_options import is_offloaded

MAX_HEADER_BYTES = 100_000_000  # what the safetensors library itself accepts
FLOATS = {"F64", "F32", "F16", "BF16"}  # these are cast to the catalog's dtype when loaded
BYTES = {"F64": 8, "I64": 8, "U64": 8, "F32": 4, "I32": 4, "U32": 4, "I16": 2, "U16": 2}
"""Bytes an element of the safetensors types; what is not listed takes one."""

NEVER_LOADED = {"safety_checker"}

_SHARD = r"(-\d{5}-of-\d{5})"
_WEIGHTS = re.compile(rf"(model|diffusion_pytorch_model){_SHARD}?\.safetensors")


def expected_footprint(model: Model, folder: Path, device: torch.device) -> Footprint:
    """Return what the pipeline in ``folder`` will take in the dtype it is loaded in.

    Reads the headers of its safetensors files alone: their layout is eight bytes of length (little
    endian), then JSON (https://huggingface.co/docs/safetensors#format). Tensors that are made and
    not stored, some KiB, are not counted. Raises `ModelUnavailable`.
    """
    width = dtype_on(device, model).itemsize
    try:
        index = json.loads((folder / "model_index.json").read_text())
        names = [name for name in index if not name.startswith("_") and name not in NEVER_LOADED]
        parts = {
            name: sum(
                _tensor_bytes(tensor, width)
                for file in weight_files(folder / name, model.variant)
                for tensor in _header(file)
            )
            for name in names
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError, struct.error) as error:
        raise ModelUnavailable(
            f"model {model.name} cannot be loaded: {type(error).__name__}", target="model"
        ) from error
    return _when_ready(parts, model, device)


def exact_footprint(pipeline: Any, model: Model, device: torch.device) -> Footprint:
    """Return the bytes of every parameter and buffer of a ready pipeline, tied ones once."""
    seen: set[int] = set()
    parts = {
        name: sum(tensor.nbytes for tensor in _tensors(part, seen))
        for name, part in pipeline.components.items()
        if isinstance(part, torch.nn.Module)
    }
    return _when_ready(parts, model, device)


def weight_files(part: Path, variant: str | None) -> list[Path]:
    """Return the safetensors files of one component: of the variant, if it has any, else plain."""
    files = sorted(part.glob("*.safetensors")) if part.is_dir() else []
    if variant is not None:
        dotted = re.escape(variant)
        named = re.compile(rf".*\.{dotted}{_SHARD}?\.safetensors|.*{_SHARD}\.{dotted}\.safetensors")
        if chosen := [file for file in files if named.fullmatch(file.name)]:
            return chosen
    return [file for file in files if _WEIGHTS.fullmatch(file.name)]


def _when_ready(parts: Mapping[str, int], model: Model, device: torch.device) -> Footprint:
    """Offloaded weights rest on the host; of the device they take the largest part at most."""
    if not is_offloaded(model, device):
        return Footprint(device_bytes=sum(parts.values()))
    return Footprint(max(parts.values(), default=0), sum(parts.values()))


def _tensors(part: torch.nn.Module, seen: set[int]) -> Iterator[torch.Tensor]:
    for tensor in (*part.parameters(), *part.buffers()):
        if id(tensor) not in seen:
            seen.add(id(tensor))
            yield tensor


def _header(file: Path) -> list[dict[str, Any]]:
    with file.open("rb") as opened:
        (length,) = struct.unpack("<Q", opened.read(8))
        if length > MAX_HEADER_BYTES:
            raise ValueError("no safetensors file")
        header = json.loads(opened.read(length))
    return [tensor for name, tensor in header.items() if name != "__metadata__"]


def _tensor_bytes(tensor: dict[str, Any], float_bytes: int) -> int:
    kind = tensor["dtype"]
    width = float_bytes if kind in FLOATS else BYTES.get(kind, 1)
    return int(math.prod(tensor["shape"])) * width
