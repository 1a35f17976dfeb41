"""Where weights are on this machine. Nothing is fetched here: they are pulled beforehand."""

from pathlib import Path

from darkroom.catalog import Catalog, LoraSource, Model
from darkroom.errors import ModelUnavailable


def locate(model: Model, catalog: Catalog) -> Path:
    """Return the folder of ``model``: beside the catalog, or in the Hugging Face cache.

    Raises `ModelUnavailable` when neither has it.
    """
    folder = catalog.folder / model.source
    if folder.is_dir():
        return folder
    return _in_hub_cache(f"model {model.name}", model.source, model.revision)


def locate_lora(lora: LoraSource, catalog: Catalog) -> Path:
    """Return the file of ``lora``, likewise; ``weight_name`` names it within a folder.

    Raises `ModelUnavailable`.
    """
    place = catalog.folder / lora.source
    if not place.exists():
        place = _in_hub_cache(f"LoRA {lora.name}", lora.source, lora.revision)
    file = place / lora.weight_name if lora.weight_name else place
    if not file.is_file():
        raise ModelUnavailable(f"LoRA {lora.name}: {lora.source} has no such file", target="loras")
    return file


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
            f"{what}: {source} at revision {revision} is neither beside the catalog nor in the hub"
            " cache of this machine",
            target="model",
        ) from error
