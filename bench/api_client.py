"""A client that costs little: HTTP/1.1 over raw sockets, and what a load of submits took."""

import asyncio
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self

HOST = "127.0.0.1"
SUBMITS = "/v1/jobs"


def get(path: str) -> bytes:
    """Return a GET request."""
    return f"GET {path} HTTP/1.1\r\nhost: {HOST}\r\n\r\n".encode()


def submit(number: int) -> bytes:
    """Return a submit; each number asks for another picture."""
    asked = {
        "prompt": f"a blue square on a yellow background, number {number}",
        "negative_prompt": "blurred",
        "num_inference_steps": 20,
        "guidance_scale": 4.0,
        "seed": number,
        "tags": {"from": "bench"},
    }
    body = json.dumps(asked).encode()
    head = f"POST {SUBMITS} HTTP/1.1\r\nhost: {HOST}\r\ncontent-type: application/json\r\n"
    return f"{head}content-length: {len(body)}\r\n\r\n".encode() + body


class Connection:
    """One connection that is kept alive. Answers must have a content-length."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self._writer = writer

    @classmethod
    async def open(cls, port: int) -> Self:
        """Connect to a port of this machine."""
        return cls(*await asyncio.open_connection(HOST, port))

    async def head(self, request: bytes) -> tuple[int, int]:
        """Send a request and read the answer's head: its status, and how long its body is."""
        self._writer.write(request)
        lines = (await self.reader.readuntil(b"\r\n\r\n")).lower().split(b"\r\n")
        length = next((line[15:] for line in lines if line.startswith(b"content-length:")), b"0")
        return int(lines[0].split()[1]), int(length)

    async def ask(self, request: bytes, status: int) -> bytes:
        """Send a request and return the answer's body. Raises `ValueError` for another status."""
        answered, length = await self.head(request)
        body = await self.reader.readexactly(length)
        if answered != status:
            raise ValueError(f"asked for {status}, answered {answered}: {body[:300]!r}")
        return body

    def close(self) -> None:
        """Close it."""
        self._writer.close()


@dataclass(frozen=True)
class Load:
    """What some submits took: each one's seconds, and those of all together."""

    latencies: list[float]
    seconds: float
    job_ids: list[str]

    @property
    def per_second(self) -> float:
        """Submits answered in a second."""
        return len(self.latencies) / self.seconds


async def submits(port: int, count: int, connections: int) -> Load:
    """Send ``count`` submits over so many connections, each as soon as its last is answered."""
    numbers = iter(range(count))
    opened = [await Connection.open(port) for _ in range(connections)]
    latencies: list[float] = []
    job_ids: list[str] = []
    began = time.perf_counter()
    await asyncio.gather(*(_one_by_one(one, numbers, latencies, job_ids) for one in opened))
    seconds = time.perf_counter() - began
    for one in opened:
        one.close()
    return Load(latencies, seconds, job_ids)


async def _one_by_one(
    connection: Connection, numbers: Iterator[int], latencies: list[float], job_ids: list[str]
) -> None:
    for number in numbers:
        request = submit(number)
        began = time.perf_counter()
        body = await connection.ask(request, 202)
        latencies.append(time.perf_counter() - began)
        job_ids.append(json.loads(body)["id"])
