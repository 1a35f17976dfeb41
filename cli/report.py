"""What a command prints about jobs and models, as plain lines and tables."""

from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.table import Table

from cli.problems import line_for
from darkroom.client import DeadLetterDetail, DeadLetterView, JobView, ModelView, UsageReport


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
    if job.resubmitted_from is not None:
        lines.append(("repeats", job.resubmitted_from))
    if job.erased_at is not None:
        lines.append(("erased", job.erased_at.isoformat(timespec="seconds")))
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


def print_dead_letters(letters: Sequence[DeadLetterView]) -> None:
    """Print a line for each dead letter."""
    if not letters:
        print("no dead letters")
        return
    rows = [
        (
            one.pool,
            one.message_id,
            one.reason,
            str(one.delivery_count),
            one.enqueued_at.astimezone().strftime("%Y-%m-%d %H:%M:%S"),
            one.tenant or "",
            one.model or "",
            str(one.job_status or "no record"),
        )
        for one in letters
    ]
    columns = ("pool", "message", "reason", "tries", "enqueued", "tenant", "model", "job is")
    _print_table(columns, rows)


def print_dead_letter(letter: DeadLetterDetail) -> None:
    """Print what there is to know about one dead letter."""
    lines = [
        ("message", letter.message_id),
        ("pool", letter.pool),
        ("reason", f"{letter.reason}: {letter.description}"),
        ("tries", str(letter.delivery_count)),
        ("enqueued", letter.enqueued_at.isoformat(timespec="seconds")),
        *(("property", f"{name}={text}") for name, text in letter.properties.items()),
        *(("field", f"{name}={text}") for name, text in (letter.message or {}).items()),
    ]
    if letter.unreadable is not None:
        lines.append(("unreadable", letter.unreadable))
    job = letter.job
    lines.append(("job", "no record" if job is None else f"{job.id} {job.status}"))
    if job is not None:
        lines.append(("attempts", str(job.attempts)))
        if job.error is not None:
            lines.append(("error", line_for(job.error.code, job.error.message, job.error.target)))
    for name, text in lines:
        print(f"{name:<11}{text}")


def print_usage(used: UsageReport) -> None:
    """Print a line for each model, and the sums."""
    rows = [
        (
            one.model,
            f"{one.gpu_seconds:.1f}",
            f"{one.cost_usd:.4f}",
            ", ".join(f"{count} {status}" for status, count in one.jobs.items()),
        )
        for one in used.models
    ]
    rows.append(("all", f"{used.gpu_seconds:.1f}", f"{used.cost_usd:.4f}", str(used.jobs)))
    _print_table(("model", "GPU s", "USD", "jobs"), rows)
    if used.truncated:
        since = used.counted_from.isoformat(timespec="seconds")
        print(f"too many jobs: only those created since {since} are counted")


def _print_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        # An id is copied: it must never be cut, whatever the width of the window.
        table.add_column(column, no_wrap=column in ("job", "message", "model"), overflow="fold")
    for row in rows:
        table.add_row(*row)
    console = Console(markup=False, highlight=False)
    if not console.is_terminal:
        console = Console(markup=False, highlight=False, width=200)
    console.print(table)
