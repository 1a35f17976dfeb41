"""`darkroom resubmit`, `delete` and `usage`: what is done with jobs that have ended."""

from datetime import UTC, datetime, timedelta

from cli import report
from cli.connection import connected


def resubmit(url: str | None, job_id: str) -> None:
    """Run a failed job again and print the new job. Raises `CommandFailed`."""
    with connected(url) as client:
        job = client.resubmit(job_id)
        print(f"{job.id} {job.status}, resubmitted from {job_id}")


def delete(url: str | None, job_id: str) -> None:
    """Erase a job's prompt and pictures. Raises `CommandFailed`."""
    with connected(url) as client:
        client.erase(job_id)
        print(f"{job_id} erased")


def show_usage(url: str | None, days: int) -> None:
    """Print what was used in the last ``days`` days. Raises `CommandFailed`."""
    end = datetime.now(UTC)
    with connected(url) as client:
        report.print_usage(client.usage(start=end - timedelta(days=days), end=end))
