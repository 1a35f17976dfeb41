"""Adapters of a loaded model: attached by catalog name, their files pinned by digest.

An adapter stays attached when its call is over, switched off: the next call that asks for it only
switches it on. `MAX_ATTACHED` of them stay, the most recently used; they are parameters of the
pipeline's modules and count in its footprint.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diffusers.utils import USE_PEFT_BACKEND
from safetensors import SafetensorError

from darkroom.catalog import LoraSource, Model
from darkroom.errors import InvalidInput, ModelUnavailable
from darkroom.generation import Lora
from worker.engines.diffusers_devices import is_out_of_memory, noticing_loss
from worker.engines.diffusers_pipelines import LOAD_ERRORS

LocateLora = Callable[[LoraSource], Path]
"""Returns the file of an adapter on this machine; raises `ModelUnavailable`."""

MAX_ATTACHED = 8
"""Adapters kept on a model between calls: twice what one request may name."""


@dataclass(frozen=True)
class _File:
    """A file as it was when its digest was taken: another identity, another content."""

    path: Path
    device: int
    inode: int
    size_bytes: int
    modified_ns: int


def _identity(path: Path) -> _File:
    facts = path.stat()
    return _File(path, facts.st_dev, facts.st_ino, facts.st_size, facts.st_mtime_ns)


class AttachedLoras:
    """The adapters on one pipeline's components."""

    def __init__(self, pipeline: Any, model: Model, locate: LocateLora) -> None:
        self._pipeline = pipeline
        self._model = model
        self._locate = locate
        self._verified: dict[str, _File] = {}
        self._attached: dict[str, _File] = {}  # by catalog name, least recently used first
        self._active: tuple[Lora, ...] = ()
        self.changes = 0
        """How often what is attached has changed: the pipeline's size with it."""

    def use(self, loras: Sequence[Lora]) -> None:
        """Have exactly ``loras`` act on the pipeline from now on, with their weights.

        Raises `InvalidInput` for a name that the model does not list, or a pipeline that takes no
        adapters; `ModelUnavailable` for a file that is missing or not the pinned one.
        """
        files = [(lora, self._file(lora)) for lora in loras]
        if not files:
            if self._active:
                self._pipeline.disable_lora()
                self._active = ()
            return
        self._check_capable()
        changed = self._attach(files)
        self._forget_oldest(keep=len(files))
        if changed or self._active != tuple(loras):
            names = [_adapter(lora.name) for lora in loras]
            self._pipeline.set_adapters(names, [lora.weight for lora in loras])
            self._pipeline.enable_lora()
            self._active = tuple(loras)

    def _check_capable(self) -> None:
        if not hasattr(self._pipeline, "load_lora_weights"):
            name = type(self._pipeline).__name__
            raise InvalidInput(f"{name} takes no LoRAs", target="loras")
        if not USE_PEFT_BACKEND:
            raise ModelUnavailable("LoRAs need the package peft, which is not installed")

    def _attach(self, files: Sequence[tuple[Lora, _File]]) -> bool:
        """Attach what is not; return whether anything was. On an error nothing stays attached."""
        changed = False
        for lora, file in files:
            if self._attached.get(lora.name) == file:
                self._attached[lora.name] = self._attached.pop(lora.name)
                continue
            try:
                if self._attached.pop(lora.name, None) is not None:
                    self._pipeline.delete_adapters(_adapter(lora.name))
                self._load(lora, file.path)
            except BaseException:
                self._drop_all()  # what was attached half-way would act on the next call
                raise
            self._attached[lora.name] = file
            self.changes += 1
            changed = True
        return changed

    def _load(self, lora: Lora, file: Path) -> None:
        """Load one adapter. Safetensors only: pickles can run code."""
        try:
            if file.suffix != ".safetensors":
                raise ValueError("no safetensors file")
            with noticing_loss():
                self._pipeline.load_lora_weights(
                    file.parent, weight_name=file.name, adapter_name=_adapter(lora.name)
                )
        except (*LOAD_ERRORS, SafetensorError) as error:
            if is_out_of_memory(error):
                raise
            raise ModelUnavailable(
                f"LoRA {lora.name} cannot be attached to model {self._model.name}:"
                f" {type(error).__name__}",
                target="loras",
            ) from error

    def _forget_oldest(self, keep: int) -> None:
        while len(self._attached) > max(MAX_ATTACHED, keep):
            oldest = next(iter(self._attached))
            del self._attached[oldest]
            self._pipeline.delete_adapters(_adapter(oldest))
            self.changes += 1
            self._active = ()  # deleting may have moved which adapters act

    def _drop_all(self) -> None:
        self._attached.clear()
        self.changes += 1
        self._active = ()
        self._pipeline.unload_lora_weights()

    def _file(self, lora: Lora) -> _File:
        """Return the adapter's file, its digest checked once for each identity of the file."""
        for source in self._model.loras:
            if source.name == lora.name:
                break
        else:
            raise InvalidInput(
                f"model {self._model.name} has no LoRA called {lora.name}", target="loras"
            )
        file = _identity(self._locate(source))
        if source.sha256 is None or self._verified.get(lora.name) == file:
            return file
        if _sha256(file.path) != source.sha256:
            raise ModelUnavailable(
                f"LoRA {lora.name}: the file is not the one pinned in the catalog", target="loras"
            )
        self._verified[lora.name] = file
        return file


def _adapter(name: str) -> str:
    """The adapter's name within torch, where a dot would separate modules."""
    return name.replace(".", "_")


def _sha256(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
