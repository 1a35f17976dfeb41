"""`darkroom submit`: ask, watch, save."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from cli import pictures, report
from cli.connection import connected
from cli.problems import CommandFailed, line_for
from cli.tags import parse_tag
from darkroom.client import Client, JobView
from darkroom.jobs import JobState


def submit_and_wait(
    url: str | None,
    prompt: str,
    *,
    parameters: Mapping[str, Any],
    image: Path | None,
    mask: Path | None,
    tags: Sequence[str],
    wait: bool,
    out: Path | None,
) -> None:
    """Submit; with ``wait``, follow the job to its end and save to ``out``.

    Raises `CommandFailed` when the API refuses, or the job does not succeed.
    """
    if out is not None and not wait:
        raise CommandFailed("--out needs --wait: the pictures are not there yet")
    pictures.check_target(out)
    labels = dict(parse_tag(tag) for tag in tags)
    with connected(url) as client:
        job = client.submit(
            prompt,
            image=image.read_bytes() if image else None,
            mask_image=mask.read_bytes() if mask else None,
            tags=labels or None,
            **parameters,
        )
        if not wait:
            print(job.id)
            return
        print(f"job {job.id}")
        try:
            job = _watch(client, job)
        except KeyboardInterrupt:
            raise CommandFailed(
                f"stopped waiting; the job goes on: darkroom status {job.id}", 130
            ) from None
        _conclude(client, job, out)


def _watch(client: Client, job: JobView) -> JobView:
    columns = (
        TextColumn("{task.description:<12}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f} %"),
        TimeElapsedColumn(),
    )
    quiet = not sys.stderr.isatty()
    with Progress(*columns, console=Console(stderr=True), disable=quiet) as progress:
        bar = progress.add_task(job.phase or "queued", total=1.0)
        for seen in client.stream(job.id):
            job = seen
            progress.update(bar, completed=job.progress, description=job.phase)
    return job


def _conclude(client: Client, job: JobView, out: Path | None) -> None:
    if job.status is JobState.FAILED and job.error is not None:
        why = line_for(job.error.code, job.error.message, job.error.target)
        raise CommandFailed(f"job {job.id} failed: {why}")
    if job.status is not JobState.SUCCEEDED:
        raise CommandFailed(f"job {job.id} ended as {job.status}")
    if out is not None:
        for path in pictures.save(client, job, out):
            print(f"saved {path}")
    else:
        print(f"done; save with: darkroom status {job.id} --out picture.png")
    print(report.split_line(job))
