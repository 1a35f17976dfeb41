"""`darkroom webhooks`: send them, tell one again, make a secret."""

from typing import Annotated

import typer
import yaml

from cli import tiers
from cli.options import Url

app = typer.Typer(
    name="webhooks",
    help="Send webhooks (with no further word), replay, make secrets.",
    rich_markup_mode=None,
)


@app.callback(invoke_without_command=True)
def send(
    context: typer.Context,
    watch_parent: Annotated[bool, typer.Option(tiers.WATCH_PARENT, hidden=True)] = False,
) -> None:
    """Run one sender, set by environment variables, until it is told to stop."""
    if context.invoked_subcommand is None:
        if watch_parent:
            tiers.follow_parent()
        raise typer.Exit(tiers.serve_webhooks())


@app.command()
def replay(
    job_id: Annotated[str, typer.Argument(help="Id of a job that has ended.")], url: Url = None
) -> None:
    """Deliver a job's event once more, with the same webhook-id."""
    from cli.connection import connected

    with connected(url) as client:
        job = client.replay_webhook(job_id)
        print(f"{job.id} {job.status}, webhook queued again")


@app.command()
def secret(
    tenant: Annotated[str, typer.Option(help="Whose webhooks it signs.")],
) -> None:
    """Make a signing secret, with its entry for the file."""
    from api.webhooks.secrets import new_secret

    made = new_secret()
    print(f"{made}\n")
    print("Give it to the receiver. The entry for DARKROOM_API_WEBHOOK_SECRETS_FILE:\n")
    entry = {"tenants": [{"tenant": tenant, "secrets": [made]}]}
    print(yaml.safe_dump(entry, sort_keys=False), end="")
