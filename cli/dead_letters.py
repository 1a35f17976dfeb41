"""`darkroom dead-letters`: what was set aside, for operators."""

from typing import Annotated

import typer

from cli.options import Url

app = typer.Typer(
    name="dead-letters",
    help="For operators: messages that were set aside.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
Pool = Annotated[str, typer.Argument(help="Pool whose queue set it aside, as `list` prints it.")]
MessageId = Annotated[str, typer.Argument(help="Id of the message, as `list` prints it.")]


@app.command("list")
def list_(
    pool: Annotated[str | None, typer.Option(help="Only this pool's.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=100, help="How many to show.")] = 20,
    url: Url = None,
) -> None:
    """Show the oldest dead letters."""
    from cli import report
    from cli.connection import connected

    with connected(url) as client:
        report.print_dead_letters(client.dead_letters(pool=pool, limit=limit))


@app.command()
def show(pool: Pool, message_id: MessageId, url: Url = None) -> None:
    """Show one: why it is here, its message, its job's state.

    Never the prompt.
    """
    from cli import report
    from cli.connection import connected

    with connected(url) as client:
        report.print_dead_letter(client.dead_letter(pool, message_id))


@app.command()
def resubmit(pool: Pool, message_id: MessageId, url: Url = None) -> None:
    """Run it again.

    A failed job as a new one, any other as the same message.
    """
    from cli.connection import connected

    with connected(url) as client:
        done = client.resubmit_dead_letter(pool, message_id)
        print(f"{message_id} {done.outcome}{f' as {done.job_id}' if done.job_id else ''}")


@app.command()
def discard(pool: Pool, message_id: MessageId, url: Url = None) -> None:
    """Remove it for good; a job that had not ended fails."""
    from cli.connection import connected

    with connected(url) as client:
        client.discard_dead_letter(pool, message_id)
        print(f"{message_id} discarded")
