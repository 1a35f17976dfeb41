"""Models from a hub: Hugging Face's, or the mirror that ``HF_ENDPOINT`` names.

The catalog's revision must be the commit itself: a branch or tag can be moved to other files.
"""

import re
import shutil
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import httpx2
from huggingface_hub import HfApi, ModelInfo, hf_hub_download
from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError
from huggingface_hub.utils.tqdm import disable_progress_bars

from darkroom.catalog import LoraSource, Model
from darkroom.errors import ModelUnavailable
from worker.manifests import INDEX, RemoteFile, components_of, inside, needed
from worker.models import lora_file
from worker.pulling import Wanted

REQUEST_SECONDS = 60.0
NOTES = ".cache"  # where the hub's client keeps what it has not finished
_COMMIT = re.compile(r"[0-9a-f]{7,40}")


class HubSource:
    """Files of repositories of the hub at ``url``, at their pinned commits."""

    def __init__(self, url: str) -> None:
        disable_progress_bars()
        self._url = url
        self._api = HfApi(endpoint=url)

    def files(self, wanted: Wanted, staged: Path) -> Sequence[RemoteFile]:
        """Return the files that the pipeline, or the adapter, consists of."""
        repository = _repository(wanted)
        shutil.rmtree(staged / NOTES, ignore_errors=True)  # parts of files that nobody goes on with
        with _hub_errors(wanted, "listing its files"):
            info = self._api.model_info(
                repository,
                revision=wanted.entry.revision,
                files_metadata=True,
                timeout=REQUEST_SECONDS,
            )
        _check_commit(wanted, info)
        files = {each.path: each for each in _listed(wanted, info)}
        if isinstance(wanted.entry, LoraSource):
            paths: Sequence[str] = [lora_file(wanted.entry)]
        else:
            paths = needed(files, self._components(wanted, files, staged), wanted.entry.variant)
        if absent := [path for path in paths if path not in files]:
            raise ModelUnavailable(f"{wanted.label}: {repository} has no {absent[0]}")
        return [files[path] for path in paths]

    def fetch(self, wanted: Wanted, file: RemoteFile, staged: Path) -> None:
        """Download the whole file: the hub's client begins anew where its process was killed."""
        (staged / file.path).unlink(missing_ok=True)
        with _hub_errors(wanted, f"fetching {file.path}"):
            hf_hub_download(
                _repository(wanted),
                file.path,
                revision=wanted.entry.revision,
                local_dir=staged,
                etag_timeout=REQUEST_SECONDS,
                endpoint=self._url,
            )

    def _components(self, wanted: Wanted, files: Collection[str], staged: Path) -> Collection[str]:
        if INDEX not in files:
            raise ModelUnavailable(f"{wanted.label}: no diffusers pipeline: there is no {INDEX}")
        index = staged / INDEX
        self.fetch(wanted, RemoteFile(INDEX, 0), staged)
        try:
            return components_of(index)
        except ValueError as error:
            raise ModelUnavailable(f"{wanted.label}: {INDEX} is no JSON object") from error


def _repository(wanted: Wanted) -> str:
    entry = wanted.entry
    if entry.source.count("/") != 1 or (isinstance(entry, LoraSource) and not entry.weight_name):
        asked = "OWNER/NAME" if isinstance(entry, Model) else "OWNER/NAME with a weight_name"
        raise ModelUnavailable(
            f"{wanted.label}: {entry.source} is not beside the catalog, and no hub repository,"
            f" which would be {asked}",
            target="source",
        )
    return entry.source


def _check_commit(wanted: Wanted, info: ModelInfo) -> None:
    revision = wanted.entry.revision or ""
    if not _COMMIT.fullmatch(revision) or not (info.sha or "").startswith(revision):
        raise ModelUnavailable(
            f"{wanted.label}: revision {revision or '(none)'} can be moved: pin its commit,"
            f" {info.sha}",
            target="revision",
        )


def _listed(wanted: Wanted, info: ModelInfo) -> Iterator[RemoteFile]:
    for each in info.siblings or ():
        try:
            inside(each.rfilename)
        except ValueError as error:
            raise ModelUnavailable(f"{wanted.label}: {error}") from error
        digest = each.lfs.sha256 if each.lfs is not None else None
        yield RemoteFile(each.rfilename, each.size or 0, digest, each.blob_id)


@contextmanager
def _hub_errors(wanted: Wanted, doing: str) -> Iterator[None]:
    """Translate what the hub's client raises; its words hold links that are signed."""
    try:
        yield
    except (HfHubHTTPError, EntryNotFoundError, httpx2.HTTPError, OSError, ValueError) as error:
        answer = getattr(error, "response", None)
        status = f", status {answer.status_code}" if answer is not None else ""
        raise ModelUnavailable(
            f"{wanted.label}: {doing} from the hub: {type(error).__name__}{status}"
        ) from None
