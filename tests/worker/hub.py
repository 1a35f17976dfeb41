"""A small model hub on loopback: what the hub's client asks for, and faults on demand."""

import hashlib
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"
SLOW_CHUNK_BYTES = 256 * 1024


@dataclass
class Hub:
    """Repositories by name, each a map of paths to bytes; large files live on a CDN, as they do."""

    repositories: dict[str, dict[str, bytes]] = field(default_factory=dict)
    large: frozenset[str] = frozenset({".safetensors"})
    corrupt: set[str] = field(default_factory=set)
    seconds_per_chunk: float = 0.0
    sent: dict[str, int] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)
    serving: int = 0
    url: str = ""
    cdn: str = ""  # on another host name, as it is: the client goes there for bytes alone

    def content(self, digest: str) -> tuple[str, bytes]:
        """The path and bytes of a large file."""
        for files in self.repositories.values():
            for path, body in files.items():
                if hashlib.sha256(body).hexdigest() == digest:
                    return path, body
        raise KeyError(digest)

    def is_large(self, path: str) -> bool:
        return any(path.endswith(end) for end in self.large)

    def sibling(self, path: str, body: bytes) -> dict[str, object]:
        entry: dict[str, object] = {"rfilename": path, "size": len(body), "blobId": git_sha1(body)}
        if self.is_large(path):
            digest = hashlib.sha256(body).hexdigest()
            entry["lfs"] = {"sha256": digest, "size": len(body), "pointerSize": 130}
        return entry


def git_sha1(body: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(body) + body, usedforsecurity=False).hexdigest()


@contextmanager
def running_hub() -> Iterator[Hub]:
    """Serve until the block ends."""
    hub = Hub()
    kind = type("Handler", (_Handler,), {"hub": hub})
    server = ThreadingHTTPServer(("127.0.0.1", 0), kind)
    server.daemon_threads = True
    hub.url = f"http://127.0.0.1:{server.server_port}"
    hub.cdn = f"http://localhost:{server.server_port}/cdn"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self._route()

    def do_GET(self) -> None:
        self._route()

    def _route(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.hub.requests.append(f"{self.command} {path}")
        words = path.strip("/").split("/")
        if words[:2] == ["api", "models"] and words[4:5] == ["revision"]:
            self._info("/".join(words[2:4]), words[5])
        elif words[2:3] == ["resolve"]:
            self._file("/".join(words[:2]), "/".join(words[4:]))
        elif words[0] == "cdn":
            self._body(*self.hub.content(words[1]), {})
        else:
            self._answer(404)

    def _info(self, name: str, revision: str) -> None:
        files = self.hub.repositories.get(name)
        if files is None or not (COMMIT.startswith(revision) or revision == "main"):
            self._answer(404, {"X-Error-Code": "RevisionNotFound" if files else "RepoNotFound"})
            return
        siblings = [self.hub.sibling(path, body) for path, body in files.items()]
        told = json.dumps({"id": name, "sha": COMMIT, "siblings": siblings}).encode()
        self._answer(200, {"Content-Type": "application/json"}, told)

    def _file(self, name: str, path: str) -> None:
        body = self.hub.repositories[name][path]
        head = {"X-Repo-Commit": COMMIT}
        if self.hub.is_large(path):
            digest = hashlib.sha256(body).hexdigest()
            linked = {"X-Linked-Size": str(len(body)), "X-Linked-Etag": f'"{digest}"'}
            self._answer(302, {**head, **linked, "Location": f"{self.hub.cdn}/{digest}"})
        else:
            self._body(path, body, {**head, "ETag": f'"{git_sha1(body)}"'})

    def _body(self, path: str, body: bytes, head: dict[str, str]) -> None:
        if path in self.hub.corrupt:
            body = bytes([body[0] ^ 1]) + body[1:]
        start = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").split("-")[0])
        if start:
            head = {**head, "Content-Range": f"bytes {start}-{len(body) - 1}/{len(body)}"}
        self.send_response(206 if start else 200)
        for name, text in {**head, "Content-Length": str(len(body) - start)}.items():
            self.send_header(name, text)
        self.end_headers()
        if self.command == "HEAD":
            return
        self.hub.serving += 1
        with suppress(ConnectionError):  # the puller was killed
            self._send(path, body, start)
        self.hub.serving -= 1

    def _send(self, path: str, body: bytes, start: int) -> None:
        for at in range(start, len(body), SLOW_CHUNK_BYTES):
            chunk = body[at : at + SLOW_CHUNK_BYTES]
            self.wfile.write(chunk)
            self.hub.sent[path] = self.hub.sent.get(path, 0) + len(chunk)
            time.sleep(self.hub.seconds_per_chunk)

    def _answer(self, status: int, head: dict[str, str] | None = None, body: bytes = b"") -> None:
        self.send_response(status)
        for name, text in {**(head or {}), "Content-Length": str(len(body))}.items():
            self.send_header(name, text)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *values: object) -> None:
        """Say nothing."""
