"""Where a model's files are on this machine. Nothing is fetched: weights are pulled beforehand."""

from pathlib import Path

from darkroom.catalog import Catalog, Model
from darkroom.errors import ModelUnavailable


def locate(model: Model, catalog: Catalog) -> Path:
    """Return the folder of ``model``: beside the catalog, or in the Hugging Face cache.

    Raises `ModelUnavailable` when neither has it.
    """
    folder = catalog.folder / model.source
    if folder.is_dir():
        return folder
    if folder.exists() or model.source.count("/") != 1:
        raise ModelUnavailable(f"model {model.name}: {model.source} is no folder", target="model")
    return _in_hub_cache(model)


def _in_hub_cache(model: Model) -> Path:
    from huggingface_hub import snapshot_download  # noqa: PLC0415 -- slow, and rarely needed
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError  # noqa: PLC0415

    try:
        return Path(snapshot_download(model.source, revision=model.revision, local_files_only=True))
    except (LocalEntryNotFoundError, HfHubHTTPError, ValueError) as error:
        raise ModelUnavailable(
            f"model {model.name}: {model.source} at revision {model.revision} is neither a folder"
            " beside the catalog nor in the hub cache of this machine",
            target="model",
        ) from error
