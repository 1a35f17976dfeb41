"""Filling the folder that workers read models from (`DARKROOM_MODELS_DIR`).

Each source at its revision is one folder, which appears under its name (`snapshot_name`) only when
every file in it was checked against its digest. Until then it is staged beside, where the next
puller goes on after a crash. Pullers on one file system wait for each other by file locks, which
end with their process; where there are no locks each stages apart, and the first to finish wins.

::

    DIR/OWNER--NAME@REVISION/   whole, with its manifest
    DIR/.staged/…               under way, or left by a puller that died
    DIR/.locks/…
"""

import errno
import fcntl
import os
import shutil
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from darkroom.catalog import Catalog, LoraSource, Model
from darkroom.errors import ModelUnavailable
from worker.manifests import (
    MANIFEST,
    Manifest,
    ManifestFile,
    RemoteFile,
    read_manifest,
    sha256_of,
    size_of,
)
from worker.models import snapshot_name

STAGED, LOCKS = ".staged", ".locks"
LEFT_BEHIND_SECONDS = 86_400.0
"""What nobody has written to for so long was left by a puller that will not come back."""

NO_LOCKS = frozenset({errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL})


@dataclass(frozen=True)
class Wanted:
    """A model, or an adapter of one, that is to be on this machine."""

    entry: Model | LoraSource

    @property
    def label(self) -> str:
        """What messages call it."""
        kind = "model" if isinstance(self.entry, Model) else "LoRA"
        return f"{kind} {self.entry.name}"

    @property
    def folder(self) -> str:
        """The name of its folder, and of what stands before its blobs."""
        return snapshot_name(self.entry)


class Source(Protocol):
    """Where files come from. Both raise `ModelUnavailable`."""

    def files(self, wanted: Wanted, staged: Path) -> Sequence[RemoteFile]:
        """Return the files of ``wanted``; what must be read to know them is put into ``staged``."""
        ...

    def fetch(self, wanted: Wanted, file: RemoteFile, staged: Path) -> None:
        """Put ``file`` into ``staged`` at its path, going on with a part of it where it can."""
        ...


@dataclass(frozen=True)
class Pulled:
    """What was done for one `Wanted`: ``fetched`` of its ``files`` came over the network."""

    wanted: Wanted
    files: int
    size_bytes: int
    fetched: int
    seconds: float


def all_wanted(catalog: Catalog, names: Sequence[str]) -> list[Wanted]:
    """Return the named models (default: all) with their adapters, each source once.

    Raises `UnknownModel`.
    """
    models = [catalog.model(name) for name in names] or list(catalog.models)
    wanted = [each for model in models for each in (Wanted(model), *map(Wanted, model.loras))]
    return list({each.folder: each for each in wanted}.values())


def is_beside(catalog: Catalog, wanted: Wanted) -> bool:
    """Whether the catalog's own folder has it, so that nothing is to be pulled."""
    return (catalog.folder / wanted.entry.source).exists()


def pull(wanted: Wanted, source: Source, cache: Path) -> Pulled:
    """Have ``wanted`` whole in ``cache``. Does nothing where it is already.

    Raises `ModelUnavailable` when it cannot be had, or a file is not what its digest says.
    """
    started = time.monotonic()
    fetched = 0
    whole = _whole(wanted, cache)
    if whole is None:
        try:
            with _staging(cache, wanted) as staged:
                whole = _whole(wanted, cache)  # the puller that we waited for has brought it
                if whole is None:
                    whole, fetched = _fill(wanted, source, staged)
                    _publish(staged, cache / wanted.folder)
        except OSError as error:
            raise ModelUnavailable(
                f"{wanted.label}: {cache}: {error.strerror or type(error).__name__}"
            ) from error
    size = sum(each.size for each in whole.files)
    return Pulled(wanted, len(whole.files), size, fetched, time.monotonic() - started)


def clear_leftovers(cache: Path, now: float) -> list[str]:
    """Remove what dead pullers have left in ``cache`` and return its names; ``now`` is Unix time.

    A younger leftover stays: its model's next puller goes on with it.
    """
    removed = []
    for folder in sorted((cache / STAGED).glob("*")):
        times = [path.stat().st_mtime for path in (folder, *folder.rglob("*")) if path.exists()]
        if now - max(times, default=now) > LEFT_BEHIND_SECONDS:
            shutil.rmtree(folder, ignore_errors=True)
            removed.append(folder.name)
    return removed


def _whole(wanted: Wanted, cache: Path) -> Manifest | None:
    folder = cache / wanted.folder
    manifest = read_manifest(folder)
    if manifest is None or not manifest.is_whole(folder):
        return None
    _check_pin(wanted, manifest.files)
    return manifest


@contextmanager
def _staging(cache: Path, wanted: Wanted) -> Iterator[Path]:
    """Yield the folder to stage in, which is nobody else's while the block runs."""
    for each in (STAGED, LOCKS):
        (cache / each).mkdir(parents=True, exist_ok=True)
    with (cache / LOCKS / wanted.folder).open("w") as lock:
        staged = cache / STAGED / wanted.folder
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise
            staged = staged.with_name(f"{staged.name}.{uuid.uuid4().hex}")
        broken = cache / wanted.folder
        if broken.exists() and _whole(wanted, cache) is None:
            shutil.rmtree(staged, ignore_errors=True)
            broken.rename(staged)  # what is good of it need not be fetched again
        staged.mkdir(exist_ok=True)
        yield staged
        shutil.rmtree(staged, ignore_errors=True)  # there no more, unless another was first


def _fill(wanted: Wanted, source: Source, staged: Path) -> tuple[Manifest, int]:
    """Bring every file of ``wanted``, and nothing else, to ``staged``; tell how many came."""
    files = source.files(wanted, staged)
    missing = [each for each in files if not each.is_at(staged / each.path)]
    _check_space(wanted, missing, staged)
    for each in missing:
        source.fetch(wanted, each, staged)
        if not each.is_at(staged / each.path):
            (staged / each.path).unlink(missing_ok=True)  # or it would be gone on with
            raise ModelUnavailable(
                f"{wanted.label}: {each.path} is not the file that its source lists: its size or"
                " digest differs",
                target=each.path,
            )
    manifest = describe(wanted, staged, [each.path for each in files])
    _check_pin(wanted, manifest.files)
    _remove_others(staged, {each.path for each in files})
    (staged / MANIFEST).write_text(manifest.model_dump_json(indent=1))
    _sync(staged)
    return manifest, len(missing)


def describe(wanted: Wanted, folder: Path, paths: Sequence[str]) -> Manifest:
    """Return the manifest of the files at ``paths`` of ``folder``, each read to its end."""
    return Manifest(
        source=wanted.entry.source,
        revision=wanted.entry.revision,
        files=tuple(
            ManifestFile(path=path, size=size_of(folder / path), sha256=sha256_of(folder / path))
            for path in paths
        ),
    )


def _check_pin(wanted: Wanted, files: Sequence[ManifestFile]) -> None:
    """Hold an adapter to the digest that the catalog pins."""
    entry = wanted.entry
    if not isinstance(entry, LoraSource) or entry.sha256 is None:
        return
    for each in files:
        if each.sha256 != entry.sha256:
            raise ModelUnavailable(
                f"{wanted.label}: {each.path} is not the file pinned in the catalog", target="loras"
            )


def _check_space(wanted: Wanted, missing: Sequence[RemoteFile], staged: Path) -> None:
    need = sum(max(0, each.size - max(0, size_of(staged / each.path))) for each in missing)
    free = shutil.disk_usage(staged).free
    if need > free:
        raise ModelUnavailable(
            f"{wanted.label}: {need / 1e9:.1f} GB are to come, {free / 1e9:.1f} GB are free"
        )


def _remove_others(staged: Path, wanted: set[str]) -> None:
    """Remove what is no file of the source: an older attempt's, or a downloader's own notes."""
    for path in sorted(staged.rglob("*"), reverse=True):
        if path.is_dir() and not path.is_symlink():
            if not any(path.iterdir()):
                path.rmdir()
        elif path.relative_to(staged).as_posix() not in wanted:
            path.unlink()


def _sync(folder: Path) -> None:
    """Have every byte on the disk: a manifest must not outlive its files in a power cut."""
    for path in (*folder.rglob("*"), folder):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _publish(staged: Path, folder: Path) -> None:
    """Make it visible at once and whole; where another was first, its folder stays."""
    try:
        staged.rename(folder)
    except OSError as error:
        if error.errno not in {errno.ENOTEMPTY, errno.EEXIST}:
            raise
