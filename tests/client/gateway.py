"""A gateway in front of a live server that loses, refuses and cuts what the test tells it to."""

import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx

PASS, LOSE, CUT = "pass", "lose", "cut"
"""Hand on; do it but lose the answer; end the answer after its first kilobytes."""


@dataclass
class Gateway:
    """``plan`` is what happens to the next requests; after it all pass. An int is a refusal."""

    url: str
    plan: deque[str | int] = field(default_factory=deque)
    seen: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)
    retry_after: str = "0"


@contextmanager
def gateway_to(target: str) -> Iterator[Gateway]:
    gateway = Gateway("")

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._serve()

        def do_POST(self) -> None:
            self._serve()

        def _serve(self) -> None:
            headers = {name.lower(): value for name, value in self.headers.items()}
            gateway.seen.append((self.command, self.path, headers))
            action = gateway.plan.popleft() if gateway.plan else PASS
            body = self.rfile.read(int(headers.get("content-length", 0)))
            if isinstance(action, int):
                self.send_response(action)
                self.send_header("retry-after", gateway.retry_after)
                self.end_headers()
                self.wfile.write(b"busy")
                return
            headers.pop("accept-encoding", None)
            with httpx.stream(
                self.command, target + self.path, headers=headers, content=body, timeout=30
            ) as answer:
                if action == LOSE:
                    answer.read()
                    return
                self.send_response(answer.status_code)
                for name, value in answer.headers.items():
                    if name not in ("content-length", "transfer-encoding", "connection"):
                        self.send_header(name, value)
                self.end_headers()
                for chunk in answer.iter_bytes():
                    self.wfile.write(chunk)
                    self.wfile.flush()
                    if action == CUT and b"data:" in chunk:
                        return

        def log_message(self, *_: object) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    gateway.url = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield gateway
    finally:
        server.shutdown()
        server.server_close()
