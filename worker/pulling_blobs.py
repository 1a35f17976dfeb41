"""Models from and to a Blob container: each a folder of blobs with a manifest in front.

The manifest is written last, so a container never lists a model that is not all there.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from azure.core.exceptions import AzureError, HttpResponseError, ResourceNotFoundError
from azure.identity import DefaultAzureCredential
from azure.storage.blob import BlobServiceClient, ContainerClient

from darkroom.azure_clients import BLOB_RETRIES, require_emulator, unless_it_is_there
from darkroom.errors import ModelUnavailable
from darkroom.settings import AzureEmulatorSettings, load
from worker.manifests import MANIFEST, Manifest, RemoteFile, parse_manifest, size_of
from worker.pulling import Wanted

PART = ".part"
CHUNK_BYTES = 8 * 2**20
SPAN_BYTES = 8 * CHUNK_BYTES
"""What is fetched over several connections before it is written: files grow in order, so that what
is there after a crash is good."""

AT_ONCE = 4  # connections
SIZES = ("max_single_get_size", "max_chunk_get_size", "max_single_put_size", "max_block_size")


def open_container(url: str) -> ContainerClient:
    """Return a client of ``azblob://ACCOUNT/CONTAINER``, for this process's identity.

    Where ``AZURE_STORAGE_CONNECTION_STRING`` is set it is an emulator's. Raises `SettingsError`.
    """
    parts = urlsplit(url)
    options = {**BLOB_RETRIES, **dict.fromkeys(SIZES, CHUNK_BYTES)}
    emulated = load(AzureEmulatorSettings).storage.get_secret_value()
    if emulated:
        require_emulator("AZURE_STORAGE_CONNECTION_STRING", emulated)
        service = BlobServiceClient.from_connection_string(emulated, **options)
    else:
        host = parts.netloc if "." in parts.netloc else f"{parts.netloc}.blob.core.windows.net"
        service = BlobServiceClient(f"https://{host}", DefaultAzureCredential(), **options)
    return service.get_container_client(parts.path.strip("/"))


class BlobSource:
    """Files of models that `push` has put into a container."""

    def __init__(self, container: ContainerClient) -> None:
        self._container = container

    def files(self, wanted: Wanted, staged: Path) -> Sequence[RemoteFile]:
        """Return what the manifest lists."""
        manifest = _read_manifest(self._container, wanted)
        if manifest is None:
            raise ModelUnavailable(
                f"{wanted.label}: container {self._container.container_name} has no"
                f" {wanted.folder}/{MANIFEST}; `darkroom models push` puts a model there"
            )
        return [RemoteFile(each.path, each.size, each.sha256) for each in manifest.files]

    def fetch(self, wanted: Wanted, file: RemoteFile, staged: Path) -> None:
        """Download to a file beside, which takes the name at the end; goes on where it ends."""
        target = staged / file.path
        target.parent.mkdir(parents=True, exist_ok=True)
        part = target.with_name(target.name + PART)
        if size_of(part) > file.size:
            part.unlink()
        blob = self._container.get_blob_client(f"{wanted.folder}/{file.path}")
        with _fetching(wanted, file.path), part.open("ab") as stream:
            while (have := stream.tell()) < file.size:
                span = min(SPAN_BYTES, file.size - have)
                stream.write(blob.download_blob(have, span, max_concurrency=AT_ONCE).readall())
        part.rename(target)


def push(wanted: Wanted, manifest: Manifest, folder: Path, container: ContainerClient) -> int:
    """Put the files of ``folder`` that ``manifest`` lists into ``container``.

    Returns how many were sent; those that the container lists with the same digest are not. Raises
    `ModelUnavailable`.
    """
    with _sending(wanted, "the container"), unless_it_is_there():
        container.create_container()
    there = _read_manifest(container, wanted)
    same = set(there.files) if there is not None else set()
    missing = [each for each in manifest.files if each not in same]
    for each in missing:
        name = f"{wanted.folder}/{each.path}"
        with _sending(wanted, each.path), (folder / each.path).open("rb") as stream:
            container.upload_blob(name, stream, overwrite=True, max_concurrency=AT_ONCE)
    if missing:
        with _sending(wanted, MANIFEST):
            text = manifest.model_dump_json(indent=1)
            container.upload_blob(f"{wanted.folder}/{MANIFEST}", text, overwrite=True)
    return len(missing)


def _read_manifest(container: ContainerClient, wanted: Wanted) -> Manifest | None:
    name = f"{wanted.folder}/{MANIFEST}"
    with _fetching(wanted, MANIFEST):
        try:
            text = container.download_blob(name).readall()
        except ResourceNotFoundError:
            return None
    return parse_manifest(text, wanted.label)


@contextmanager
def _fetching(wanted: Wanted, what: str) -> Iterator[None]:
    with _errors(f"{wanted.label}: fetching {what}"):
        yield


@contextmanager
def _sending(wanted: Wanted, what: str) -> Iterator[None]:
    with _errors(f"{wanted.label}: sending {what}"):
        yield


@contextmanager
def _errors(doing: str) -> Iterator[None]:
    """Translate what the SDK raises; its words can hold links that are signed."""
    try:
        yield
    except AzureError as error:
        status = error.status_code if isinstance(error, HttpResponseError) else None
        said = "" if status is None else f", status {status}"
        raise ModelUnavailable(f"{doing}: {type(error).__name__}{said}") from None
