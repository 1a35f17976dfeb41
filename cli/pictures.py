"""Saving the pictures of a finished job."""

from pathlib import Path

from cli.problems import CommandFailed
from darkroom.client import Client, JobView


def check_target(out: Path | None) -> None:
    """Refuse a file that cannot be written, before a job is paid for."""
    if out is not None and not out.parent.is_dir():
        raise CommandFailed(f"--out: there is no folder {out.parent}")
    if out is not None and out.is_dir():
        raise CommandFailed(f"--out: {out} is a folder; name a file")


def paths_for(out: Path, count: int) -> list[Path]:
    """Return where each picture goes: one to ``out``; several to name-1.png, name-2.png, ..."""
    if count == 1:
        return [out]
    return [out.with_name(f"{out.stem}-{index + 1}{out.suffix}") for index in range(count)]


def save(client: Client, job: JobView, out: Path) -> list[Path]:
    """Fetch every picture of ``job`` and return the files written."""
    paths = paths_for(out, len(job.images))
    for index, path in enumerate(paths):
        try:
            path.write_bytes(client.image(job.id, index))
        except OSError as error:
            raise CommandFailed(f"--out: {path}: {error.strerror}") from error
    return paths
