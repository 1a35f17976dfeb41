"""Where weights are on this machine. Nothing is fetched here: they are pulled beforehand.

A source is looked for beside the catalog, then among what `darkroom models pull` has brought
(``DARKROOM_MODELS_DIR``), then in the hub cache of this machine.
"""

import os
from pathlib import Path

from darkroom.catalog import Catalog, LoraSource, Model
from darkroom.errors import ModelUnavailable


def locate(model: Model, catalog: Catalog) -> Path:
    """Return the folder of ``model``.

    Raises `ModelUnavailable` when it is nowhere on this machine.
    """
    for folder in (catalog.folder / model.source, _pulled(catalog, model)):
        if folder is not None and folder.is_dir():
            return folder
    return _in_hub_cache(f"model {model.name}", model.source, model.revision)


def locate_lora(lora: LoraSource, catalog: Catalog) -> Path:
    """Return the file of ``lora``, likewise; ``weight_name`` names it within a folder.

    Raises `ModelUnavailable`.
    """
    place = catalog.folder / lora.source
    if not place.exists():
        pulled = _pulled(catalog, lora)
        if pulled is not None and (pulled / lora_file(lora)).is_file():
            return pulled / lora_file(lora)
        place = _in_hub_cache(f"LoRA {lora.name}", lora.source, lora.revision)
    file = place / lora.weight_name if lora.weight_name else place
    if not file.is_file():
        raise ModelUnavailable(f"LoRA {lora.name}: {lora.source} has no such file", target="loras")
    return file


def lora_file(lora: LoraSource) -> str:
    """Return the name of the adapter's file within its folder."""
    return lora.weight_name or Path(lora.source).name


def snapshot_name(entry: Model | LoraSource) -> str:
    """Return the name of the one folder that holds this source at this revision.

    An adapter without a revision is told apart by its digest.
    """
    version = entry.revision
    if isinstance(entry, LoraSource):
        version = version or entry.sha256 or "unpinned"
    return f"{entry.source.strip('/')}@{version}".replace("/", "--")


def read_ahead(folder: Path) -> None:
    """Ask the kernel to begin reading the weights of ``folder``, and return at once.

    The disk then works while torch is imported. Advice only: a kernel may take or leave it.
    """
    for file in folder.rglob("*.safetensors"):
        descriptor = os.open(file, os.O_RDONLY)
        try:
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_WILLNEED)
        finally:
            os.close(descriptor)


def _pulled(catalog: Catalog, entry: Model | LoraSource) -> Path | None:
    return catalog.models_dir / snapshot_name(entry) if catalog.models_dir else None


def _in_hub_cache(what: str, source: str, revision: str | None) -> Path:
    if source.count("/") != 1:  # a hub repository is OWNER/NAME
        raise ModelUnavailable(f"{what}: there is no {source} beside the catalog", target="model")
    from huggingface_hub import snapshot_download  # noqa: PLC0415 -- slow, and rarely needed
    from huggingface_hub.errors import (  # noqa: PLC0415 -- likewise
        HfHubHTTPError,
        LocalEntryNotFoundError,
    )

    try:
        return Path(snapshot_download(source, revision=revision, local_files_only=True))
    except (LocalEntryNotFoundError, HfHubHTTPError, ValueError) as error:
        raise ModelUnavailable(
            f"{what}: {source} at revision {revision} is neither beside the catalog, nor pulled,"
            " nor in the hub cache of this machine",
            target="model",
        ) from error
