"""`darkroom models pull` and `push`."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cli.problems import CommandFailed, needing
from darkroom.catalog import Catalog, load_catalog
from darkroom.errors import SettingsError
from darkroom.settings import DarkroomSettings, load

if TYPE_CHECKING:
    from worker.pulling import Source
    from worker.settings import ModelsSettings

USAGE = 2
BLOBS = "azblob://"


def pull_models(
    names: Sequence[str], *, cache: Path | None, from_: str | None, catalog: Path | None
) -> None:
    """Pull and say what was done. Raises `CommandFailed`, `DarkroomError`."""
    from worker.pulling import all_wanted, clear_leftovers, is_beside, pull

    settings, known = _settings(cache, from_, catalog)
    folder = settings.models_dir
    if folder is None:
        raise CommandFailed("say where to: --cache DIR, or DARKROOM_MODELS_DIR", USAGE)
    wanted = all_wanted(known, names)
    absent = [each for each in wanted if not is_beside(known, each)]
    for each in wanted:
        if each not in absent:
            print(f"{each.label:<24} beside the catalog")
    source = _source(settings) if absent else None
    for each in absent:
        assert source is not None
        done = pull(each, source, folder)
        size = f"{done.files} files, {done.size_bytes / 1e6:.1f} MB"
        came = f"{done.fetched} fetched in {done.seconds:.1f} s" if done.fetched else "nothing new"
        print(f"{each.label:<24} {size}: {came}", flush=True)
    for name in clear_leftovers(folder, time.time()):
        print(f"{name:<24} left by a dead puller: removed")


def push_models(names: Sequence[str], *, to: str, cache: Path | None, catalog: Path | None) -> None:
    """Push and say what was done. Raises `CommandFailed`, `DarkroomError`."""
    from worker.pulling import all_wanted
    from worker.pushing import prepare

    settings, known = _settings(cache, to, catalog)
    if not settings.models_from.startswith(BLOBS):
        raise SettingsError(f"--to must be {BLOBS}ACCOUNT/CONTAINER", target="--to")
    with needing("azure", BLOBS):
        from worker.pulling_blobs import open_container, push
    container = open_container(settings.models_from)
    for each in all_wanted(known, names):
        folder, manifest = prepare(each, known)
        sent = push(each, manifest, folder, container)
        print(f"{each.label:<24} {len(manifest.files)} files: {sent} sent", flush=True)


def _settings(
    cache: Path | None, place: str | None, catalog: Path | None
) -> tuple["ModelsSettings", Catalog]:
    from worker.settings import load_models_settings

    models = load_models_settings(cache, place)
    return models, load_catalog(catalog or load(DarkroomSettings).catalog, models.models_dir)


def _source(settings: "ModelsSettings") -> "Source":
    if settings.models_from.startswith(BLOBS):
        with needing("azure", BLOBS):
            from worker.pulling_blobs import BlobSource, open_container
        return BlobSource(open_container(settings.models_from))
    with needing("worker", "the hub"):
        from worker.pulling_hub import HubSource
    return HubSource(settings.hub_url)
