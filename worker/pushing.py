"""What of a model on this machine goes into a container: the files that a worker reads."""

from pathlib import Path

from darkroom.catalog import Catalog, LoraSource
from darkroom.errors import ModelUnavailable
from worker.manifests import INDEX, Manifest, components_of, needed, read_manifest
from worker.models import locate, locate_lora
from worker.pulling import Wanted, describe


def prepare(wanted: Wanted, catalog: Catalog) -> tuple[Path, Manifest]:
    """Return the folder of ``wanted`` and the manifest of its files.

    Raises `ModelUnavailable` for one that is not on this machine, or no pipeline.
    """
    entry = wanted.entry
    if isinstance(entry, LoraSource):
        file = locate_lora(entry, catalog)
        return file.parent, describe(wanted, file.parent, [file.name])
    folder = locate(entry, catalog)
    pulled = read_manifest(folder)
    if pulled is not None:
        return folder, pulled
    try:
        components = components_of(folder / INDEX)
    except (OSError, ValueError) as error:
        raise ModelUnavailable(f"{wanted.label}: no diffusers pipeline: {INDEX}") from error
    there = [
        path.relative_to(folder).as_posix() for path in sorted(folder.rglob("*")) if path.is_file()
    ]
    return folder, describe(wanted, folder, needed(there, components, entry.variant))
