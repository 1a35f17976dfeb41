"""What a pulled model consists of: a manifest with the size and SHA-256 of every file.

The same file stands in the folder of a pulled model and in front of its blobs in a container.
"""

import hashlib
import json
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from darkroom.catalog import Sha256
from darkroom.errors import ModelUnavailable

MANIFEST = "darkroom-manifest.json"
TEXTS = frozenset({".json", ".txt", ".model"})  # .model: sentencepiece's vocabularies
WEIGHTS = ".safetensors"
INDEX = "model_index.json"
NOT_LOADED = frozenset({"safety_checker"})  # the worker builds pipelines without it


def inside(path: str) -> str:
    """Return ``path`` if it leads to nowhere but into its folder. Raises `ValueError`."""
    parts = PurePosixPath(path).parts
    if not parts or path.startswith("/") or "\\" in path or "\0" in path or ".." in parts:
        raise ValueError(f"{path!r} leads out of its folder")
    return path


RelativePath = Annotated[str, AfterValidator(inside)]


class ManifestFile(BaseModel):
    """One file: its path within the folder, its size in bytes, its digest."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: RelativePath
    size: int = Field(ge=0)
    sha256: Sha256


class Manifest(BaseModel):
    """All files of a source at a revision."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: Literal[1] = 1
    source: str
    revision: str | None
    files: tuple[ManifestFile, ...] = Field(min_length=1)

    def is_whole(self, folder: Path) -> bool:
        """Whether ``folder`` has every file at its full size."""
        return all(size_of(folder / each.path) == each.size for each in self.files)


@dataclass(frozen=True)
class RemoteFile:
    """One file as its source describes it: with a SHA-256, or with git's digest of it (SHA-1)."""

    path: str
    size: int
    sha256: str | None = None
    git_sha1: str | None = None

    def is_at(self, file: Path) -> bool:
        """Whether ``file`` is this one, to the last byte."""
        if size_of(file) != self.size:
            return False
        if self.sha256 is not None:
            return sha256_of(file) == self.sha256
        return self.git_sha1 is None or git_sha1_of(file) == self.git_sha1


def parse_manifest(text: bytes, where: str) -> Manifest:
    """Return the manifest. Raises `ModelUnavailable` that names ``where`` it was."""
    try:
        return Manifest.model_validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        field = ".".join(str(part) for part in first["loc"])
        raise ModelUnavailable(f"{where}: {MANIFEST}: {field}: {first['msg']}") from None


def read_manifest(folder: Path) -> Manifest | None:
    """Return what ``folder`` says of itself, or None where it says nothing."""
    try:
        return parse_manifest((folder / MANIFEST).read_bytes(), str(folder))
    except (OSError, ModelUnavailable):
        return None


def size_of(file: Path) -> int:
    """Return the size in bytes; -1 where there is no file."""
    return file.stat().st_size if file.is_file() else -1


def sha256_of(file: Path) -> str:
    """Return the digest in hex."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def git_sha1_of(file: Path) -> str:
    """Return what git calls a file of these bytes: the SHA-1 of a header and the content."""
    head = f"blob {size_of(file)}\0".encode()
    return hashlib.sha1(head + file.read_bytes(), usedforsecurity=False).hexdigest()


def components_of(index: Path) -> Collection[str]:
    """Return the folders that a pipeline's index names. Raises `ValueError`."""
    named = json.loads(index.read_text())
    if not isinstance(named, dict):
        raise ValueError("no object")
    return {
        name
        for name, kind in named.items()
        if isinstance(kind, list) and any(kind) and name not in NOT_LOADED
    }


def needed(paths: Iterable[str], components: Collection[str], variant: str | None) -> list[str]:
    """Return those of a pipeline's ``paths`` that its worker reads.

    Safetensors of the ``variant`` (such as fp16) where a component has them, else those without
    one; configurations, vocabularies; nothing that holds code, and no copies in other formats.
    Raises `ModelUnavailable` for a component that has weights of other variants alone.
    """
    texts = list[str]()
    weights = dict[str, list[str]]()
    for path in paths:
        folder, _, name = path.rpartition("/")
        if folder and folder.split("/")[0] not in components:
            continue
        if WEIGHTS in name and PurePosixPath(name).suffix in {WEIGHTS, ".json"}:
            if folder:  # at the top lies the whole model in one file, for other programs
                weights.setdefault(folder, []).append(path)
        elif PurePosixPath(name).suffix in TEXTS:
            texts.append(path)
    for folder, each in weights.items():
        fitting = [path for path in each if _variant(path) == variant]
        fitting = fitting or [path for path in each if _variant(path) is None]
        if not fitting:
            raise ModelUnavailable(f"{folder} has no weights of variant {variant}")
        texts += fitting
    return sorted(texts)


def _variant(path: str) -> str | None:
    """Return the infix of a weights file: fp16 of ``model.fp16.safetensors``, its shards, index."""
    words = path.rpartition("/")[2].removesuffix(".json").split(".")
    words = [word for word in words[1:] if word not in {"safetensors", "index"}]
    return words[0].split("-")[0] if words else None
