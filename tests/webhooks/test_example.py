"""The receiver in docs/webhooks.md runs as it stands."""

import asyncio
import re
import socket
import sys
from datetime import UTC, datetime
from pathlib import Path

import httpx

from api.webhooks.outcomes import outcome_of
from tests.webhooks.receiver import SECRET, posting

PAGE = Path(__file__).resolve().parents[2] / "docs" / "webhooks.md"


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


async def answering(port: int) -> None:
    async with asyncio.timeout(30), httpx.AsyncClient() as http:
        while True:
            try:
                forged = await http.post(f"http://127.0.0.1:{port}/", content=b"{}")
            except httpx.TransportError:
                await asyncio.sleep(0.05)
            else:
                assert forged.status_code == 401, "nobody signed that"
                return


async def test_the_receiver_of_the_guide_takes_an_event_once(tmp_path: Path) -> None:
    [code] = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.S)
    port = free_port()
    guide = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        code,
        env={"WEBHOOK_SECRET": SECRET, "PORT": str(port)},
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        await answering(port)
        async with posting(tmp_path) as post:
            post.clock.advance((datetime.now(UTC) - post.clock.now()).total_seconds())
            job = await post.ended(f"http://localhost:{port}/")
            await post.deliver()
            assert post.attempts(outcome_of(204).code) == 1
        assert guide.stdout is not None
        line = await asyncio.wait_for(guide.stdout.readline(), 10)
        assert line.decode() == f"job.canceled {job.id}\n"
    finally:
        guide.kill()
        await guide.wait()
