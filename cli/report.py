"""What a command prints about jobs and models, as plain lines and tables."""

from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.table import Table

from cli.problems import line_for
from darkroom.client import JobView, ModelView


def split_line(job: JobView) -> str:
    """Return where the time of a job went, in seconds."""
    took = job.usage
    return (
        f"queue {took.queue_seconds:.1f} s, model load {took.load_seconds:.1f} s,"
        f" denoise {took.gpu_seconds:.1f} s, store {took.store_seconds:.2f} s"
    )


def print_job(job: JobView) -> None:
    """Print what there is to know about one job; never its prompt's picture bytes."""
    lines = [("job", job.id), ("status", _status(job)), ("model", job.model)]
    if job.error is not None:
        why = line_for(job.error.code, job.error.message, job.error.target)
        lines.append(("error", why))
    if job.status.is_terminal:
        lines.append(("took", split_line(job)))
    lines.append(("attempts", str(job.attempts)))
    lines.append(("created", job.created_at.isoformat(timespec="seconds")))
    lines += [("tag", f"{name}={text}") for name, text in job.tags.items()]
    lines += [
        (f"image {index}", f"{image.width}x{image.height}, seed {image.seed}")
        for index, image in enumerate(job.images)
    ]
    for name, text in lines:
        print(f"{name:<10}{text}")


def _status(job: JobView) -> str:
    if job.status.is_terminal or not job.phase:
        return str(job.status)
    return f"{job.status} ({job.phase}, {job.progress:.0%})"


def print_jobs(jobs: Iterable[JobView]) -> None:
    """Print a line for each job."""
    rows = [
        (
            job.id,
            _status(job),
            job.model,
            job.created_at.astimezone().strftime("%Y-%m-%d %H:%M:%S"),
            str(len(job.images) or ""),
        )
        for job in jobs
    ]
    _print_table(("job", "status", "model", "created", "images"), rows)


def print_models(models: Sequence[ModelView]) -> None:
    """Print a line for each model."""
    rows = []
    for model in models:
        asked, most = model.defaults, model.limits
        size = f"{asked.get('width', '?')}x{asked.get('height', '?')}"
        steps = f"{asked.get('num_inference_steps', '?')}"
        rows.append(
            (
                model.name,
                model.title,
                ", ".join(kind.replace("_", " ") for kind in model.kinds),
                f"{size}, {steps} steps",
                f"side {most.get('max_side', '?')}, {most.get('max_steps', '?')} steps",
                model.licence,
            )
        )
    _print_table(("model", "title", "does", "default", "at most", "licence"), rows)


def _print_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        # An id is copied: it must never be cut, whatever the width of the window.
        table.add_column(column, no_wrap=column in ("job", "model"), overflow="fold")
    for row in rows:
        table.add_row(*row)
    console = Console(markup=False, highlight=False)
    if not console.is_terminal:
        console = Console(markup=False, highlight=False, width=200)
    console.print(table)
