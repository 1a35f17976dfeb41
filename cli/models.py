"""`darkroom models`: what may be asked for; pull models to a folder, push them to a container."""

from pathlib import Path
from typing import Annotated

import typer

from cli.options import Url

app = typer.Typer(
    name="models",
    help="Show the models (with no further word), pull and push them.",
    rich_markup_mode=None,
)
Names = Annotated[list[str] | None, typer.Argument(help="Models of the catalog; default: all.")]
CatalogFile = Annotated[Path | None, typer.Option(help="Catalog of models and pools.")]


@app.callback(invoke_without_command=True)
def show(context: typer.Context, url: Url = None) -> None:
    """Show what may be asked for."""
    if context.invoked_subcommand is None:
        from cli.jobs import show_models

        show_models(url)


@app.command()
def pull(
    model: Names = None,
    cache: Annotated[Path | None, typer.Option(help="Folder that workers read.")] = None,
    from_: Annotated[
        str | None, typer.Option("--from", help="hub, or azblob://ACCOUNT/CONTAINER.")
    ] = None,
    catalog: CatalogFile = None,
) -> None:
    """Have models and LoRAs on this machine, checked by digest."""
    from cli.pulling import pull_models

    pull_models(model or [], cache=cache, from_=from_, catalog=catalog)


@app.command()
def push(
    to: Annotated[str, typer.Option(help="azblob://ACCOUNT/CONTAINER.")],
    model: Names = None,
    cache: Annotated[Path | None, typer.Option(help="Folder that they were pulled to.")] = None,
    catalog: CatalogFile = None,
) -> None:
    """Put models into a Blob container, for others to pull."""
    from cli.pulling import push_models

    push_models(model or [], to=to, cache=cache, catalog=catalog)
