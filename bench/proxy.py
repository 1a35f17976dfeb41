"""A TCP proxy on loopback that breaks connections on demand, between a client and a server.

It can cut every open connection (reset), swallow traffic for a while (a black hole: bytes are read
and not passed on until it ends), delay it, and lose one answer: pass the request on, then reset
the connection before the reply, so that the client cannot know whether its write took effect.
"""

import asyncio
import contextlib
import socket
import struct
from collections.abc import AsyncIterator

_CHUNK_BYTES = 65_536


class FaultProxy:
    """Forwards ``127.0.0.1:port`` to ``127.0.0.1:target_port``.

    ``delay_seconds`` is added to every chunk in either direction. ``lose_answers`` is how many
    replies are still to be lost.
    """

    def __init__(self, target_port: int) -> None:
        self.target_port = target_port
        self.port = 0
        self.delay_seconds = 0.0
        self.lose_answers = 0
        self._open = asyncio.Event()
        self._open.set()
        self._writers: set[asyncio.StreamWriter] = set()

    def cut(self) -> int:
        """Reset every open connection; return how many there were."""
        count = len(self._writers) // 2
        for writer in list(self._writers):
            _reset(writer)
        return count

    def blackhole(self, on: bool) -> None:
        """Hold all traffic back while ``on``."""
        if on:
            self._open.clear()
        else:
            self._open.set()

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, is_answer: bool
    ) -> None:
        while chunk := await reader.read(_CHUNK_BYTES):
            await self._open.wait()
            if self.delay_seconds:
                await asyncio.sleep(self.delay_seconds)
            if is_answer and self.lose_answers > 0:
                self.lose_answers -= 1
                return
            writer.write(chunk)
            await writer.drain()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self.target_port)
        except OSError:
            _reset(writer)
            return
        pair = {writer, far_writer}
        self._writers |= pair
        pumps = [
            asyncio.create_task(self._pump(reader, far_writer, is_answer=False)),
            asyncio.create_task(self._pump(far_reader, writer, is_answer=True)),
        ]
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)
            self._writers -= pair
            for each in pair:
                _reset(each)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator["FaultProxy"]:
        """Listen on a free port until the block ends."""
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            self.blackhole(False)
            server.close()
            self.cut()


def _reset(writer: asyncio.StreamWriter) -> None:
    """Close with a TCP reset, as a crashed peer's kernel would."""
    sock = writer.get_extra_info("socket")
    with contextlib.suppress(OSError, AttributeError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    with contextlib.suppress(OSError, RuntimeError):
        writer.transport.abort()
