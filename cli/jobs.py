"""`darkroom status`, `list`, `cancel` and `models`."""

from pathlib import Path

from cli import pictures, report
from cli.connection import connected
from cli.problems import CommandFailed
from cli.tags import parse_tag


def show(url: str | None, job_id: str, out: Path | None) -> None:
    """Print one job; with ``out``, save its pictures. Raises `CommandFailed`."""
    pictures.check_target(out)
    with connected(url) as client:
        job = client.get(job_id)
        report.print_job(job)
        if out is None:
            return
        if not job.images:
            raise CommandFailed(f"job {job.id} is {job.status} and has no pictures to save")
        for path in pictures.save(client, job, out):
            print(f"{'saved':<10}{path}")


def show_list(
    url: str | None, limit: int, *, status: str | None, model: str | None, tag: str | None
) -> None:
    """Print the newest ``limit`` jobs that pass the filters. Raises `CommandFailed`."""
    label = parse_tag(tag) if tag else None
    with connected(url) as client:
        report.print_jobs(client.list(limit=limit, status=status, model=model, tag=label))


def cancel(url: str | None, job_id: str) -> None:
    """Ask for a job to stop and print what became of it. Raises `CommandFailed`."""
    with connected(url) as client:
        job = client.cancel(job_id)
        asked = "" if job.status.is_terminal else ", asked to stop"
        print(f"{job.id} {job.status}{asked}")


def show_models(url: str | None) -> None:
    """Print what may be asked for. Raises `CommandFailed`."""
    with connected(url) as client:
        report.print_models(client.models())
