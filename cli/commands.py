"""What can be typed: the commands, their options and their help."""

from pathlib import Path
from typing import Annotated

import typer

from cli import dead_letters, models, tiers, webhooks
from cli.options import Url
from darkroom import __version__

app = typer.Typer(
    name="darkroom",
    help="Darkroom: a queue in front of diffusion models. Start with: darkroom up",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

keys = typer.Typer(no_args_is_help=True, help="Make API keys.", rich_markup_mode=None)
app.add_typer(keys, name="keys")

app.add_typer(dead_letters.app)

app.add_typer(webhooks.app)

app.add_typer(models.app)

JobId = Annotated[str, typer.Argument(help="Id of a job, as `submit` and `list` print it.")]


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"darkroom {__version__}")
        raise typer.Exit


@app.callback()
def common(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version."),
    ] = False,
) -> None:
    """Options before the command."""


@app.command()
def up(
    port: Annotated[int, typer.Option(help="Port of the API; 0 takes a free one.")] = 8080,
    workers: Annotated[int, typer.Option(min=1, help="Worker processes per pool.")] = 1,
    data_dir: Annotated[
        Path | None,
        typer.Option(help="Folder of queue, records and pictures; else as set by the variables."),
    ] = None,
    catalog: Annotated[Path | None, typer.Option(help="Catalog of models and pools.")] = None,
) -> None:
    """Run API and workers on this machine; Ctrl-C stops all."""
    from cli.up import serve

    serve(port=port, workers=workers, data_dir=data_dir, catalog=catalog)


@app.command()
def submit(
    prompt: Annotated[str, typer.Argument(help="What the picture should show.")],
    model: Annotated[str | None, typer.Option(help="Model; see `darkroom models`.")] = None,
    steps: Annotated[
        int | None, typer.Option(help="Denoising steps, 1 to 200; else the model's.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the first picture; else drawn.")] = None,
    width: Annotated[
        int | None, typer.Option(help="Pixels, a multiple of 8; else the model's.")
    ] = None,
    height: Annotated[
        int | None, typer.Option(help="Pixels, a multiple of 8; else the model's.")
    ] = None,
    guidance: Annotated[
        float | None, typer.Option(help="How closely to follow the prompt, 0 to 30.")
    ] = None,
    negative: Annotated[str | None, typer.Option(help="What it should not show.")] = None,
    images: Annotated[int, typer.Option(help="How many pictures, 1 to 8.")] = 1,
    scheduler: Annotated[str | None, typer.Option(help="A diffusers scheduler class.")] = None,
    image: Annotated[
        Path | None, typer.Option(help="Picture to start from.", exists=True, dir_okay=False)
    ] = None,
    mask: Annotated[
        Path | None,
        typer.Option(help="With --image: white is repainted.", exists=True, dir_okay=False),
    ] = None,
    strength: Annotated[
        float | None, typer.Option(help="How far to leave --image, up to 1.")
    ] = None,
    tag: Annotated[list[str] | None, typer.Option(help="A label, name=value; repeatable.")] = None,
    webhook_url: Annotated[
        str | None, typer.Option(help="Address that is told how the job ended.")
    ] = None,
    wait: Annotated[bool, typer.Option(help="Wait for the pictures.")] = True,
    out: Annotated[Path | None, typer.Option(help="File to save to; several get -1, -2.")] = None,
    url: Url = None,
) -> None:
    """Ask for pictures and watch them come; --out saves them."""
    from cli.submit import submit_and_wait

    submit_and_wait(
        url,
        prompt,
        parameters={
            "model": model,
            "num_inference_steps": steps,
            "seed": seed,
            "width": width,
            "height": height,
            "guidance_scale": guidance,
            "negative_prompt": negative,
            "num_images": images,
            "scheduler": scheduler,
            "strength": strength,
            "webhook_url": webhook_url,
        },
        image=image,
        mask=mask,
        tags=tag or [],
        wait=wait,
        out=out,
    )


@app.command()
def status(
    job_id: JobId,
    out: Annotated[Path | None, typer.Option(help="Save finished pictures here.")] = None,
    url: Url = None,
) -> None:
    """Show one job: state, progress, where the time went."""
    from cli.jobs import show

    show(url, job_id, out)


@app.command("list")
def list_(
    state: Annotated[
        str | None,
        typer.Option("--status", help="NotStarted, Running, Succeeded, Failed, Canceled."),
    ] = None,
    model: Annotated[str | None, typer.Option(help="Jobs of this model alone.")] = None,
    tag: Annotated[str | None, typer.Option(help="Jobs with this label, name=value.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="How many to show.")] = 20,
    url: Url = None,
) -> None:
    """Show jobs, newest first."""
    from cli.jobs import show_list

    show_list(url, limit, status=state, model=model, tag=tag)


@app.command()
def cancel(job_id: JobId, url: Url = None) -> None:
    """Stop a job; one that has ended stays as it is."""
    from cli.jobs import cancel as ask

    ask(url, job_id)


@app.command()
def resubmit(job_id: JobId, url: Url = None) -> None:
    """Run a failed or canceled job again, as a new one."""
    from cli.ended import resubmit as ask

    ask(url, job_id)


@app.command()
def delete(job_id: JobId, url: Url = None) -> None:
    """Erase prompt and pictures of a job that has ended."""
    from cli.ended import delete as ask

    ask(url, job_id)


@app.command()
def usage(
    days: Annotated[int, typer.Option(min=1, max=31, help="How many days back.")] = 1,
    url: Url = None,
) -> None:
    """Show GPU seconds, cost and jobs by model."""
    from cli.ended import show_usage

    show_usage(url, days)


@app.command()
def doctor(
    cluster: Annotated[bool, typer.Option("--cluster", help="Look at the cluster too.")] = False,
    expect: Annotated[
        list[str] | None,
        typer.Option(
            help="keda, kueue, templates, secrets, gpu: what the cluster should have; repeatable."
            " Default: keda or templates, by the queue, and gpu."
        ),
    ] = None,
    namespace: Annotated[str | None, typer.Option(help="Of the API; default: the pod's.")] = None,
    workers_namespace: Annotated[
        str | None, typer.Option(help="Of the workers; default: the queue URL's, else the API's.")
    ] = None,
    wait: Annotated[
        float, typer.Option(min=0, help="Seconds to wait for a demo job; 0 tries none.")
    ] = 300.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print the findings as JSON.")] = False,
    url: Url = None,
) -> None:
    """Check an installation, down to a picture, with cures."""
    from cli.doctor import Asked, examine

    examine(
        Asked(
            url=url,
            cluster=cluster,
            expect=expect or [],
            namespace=namespace,
            workers_namespace=workers_namespace,
            wait_seconds=wait,
            as_json=as_json,
        )
    )


@keys.command("new")
def new_key(
    tenant: Annotated[str, typer.Option(help="Who the key belongs to.")],
    role: Annotated[
        list[str] | None,
        typer.Option(
            help="Jobs.Submit, Jobs.Read, Jobs.Operate; repeatable. Default: the first two."
        ),
    ] = None,
    name: Annotated[str | None, typer.Option(help="The key's name in the file.")] = None,
    days: Annotated[int | None, typer.Option(min=1, help="End after so many days.")] = None,
) -> None:
    """Make an API key, printed once, with its entry for the file."""
    from cli.keys import print_new

    print_new(tenant, roles=role or [], name=name, days=days)


@app.command()
def api(
    watch_parent: Annotated[bool, typer.Option(tiers.WATCH_PARENT, hidden=True)] = False,
) -> None:
    """Run one API process, set by environment variables."""
    if watch_parent:
        tiers.follow_parent()
    raise typer.Exit(tiers.serve_api())


@app.command()
def worker(
    devices: Annotated[
        str | None,
        typer.Option(help="A worker on each visible GPU or MIG slice: all, or how many."),
    ] = None,
    watch_parent: Annotated[bool, typer.Option(tiers.WATCH_PARENT, hidden=True)] = False,
) -> None:
    """Run one worker process, or one on each device.

    Set by environment variables: docs/configuration.md.
    """
    if watch_parent:
        tiers.follow_parent()
    raise typer.Exit(tiers.serve_worker(devices))
