"""A real server for one test: uvicorn on a free port, memory backends, workers with a fake engine.

It runs in a thread with a loop of its own, so that clients of every kind, the blocking ones too,
meet it as they would meet another process.
"""

import asyncio
import socket
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from prometheus_client import CollectorRegistry

from api.app import create_app
from api.settings import ApiSettings
from api.state import ApiState, make_state
from api.wiring import _Server as Server
from darkroom.catalog import load_catalog
from darkroom.clock import SystemClock
from darkroom.imagestores.memory import MemoryImageStore
from darkroom.jobstores.memory import MemoryJobStore
from darkroom.metrics import WorkerMetrics
from darkroom.queues.memory import MemoryJobQueue
from darkroom.settings import DarkroomSettings
from darkroom.wiring import Backends
from worker.drain import Drain
from worker.engine_thread import EngineThread
from worker.engines.fake import FakeEngine
from worker.settings import WorkerSettings
from worker.wiring import build_worker

T = TypeVar("T")
START_SECONDS = 30

CATALOG = """
version: 1
default_model: demo
models:
  - name: demo
    source: weights
    revision: "1"
    kinds: [text_to_image, image_to_image, inpainting]
    dtype: float32
    defaults: {width: 64, height: 64, num_inference_steps: 4, guidance_scale: 4.0}
    limits: {max_side: 512}
    seconds_per_megapixel_step: 0.1
    load_seconds: 0
    licence: MIT
pools:
  - {name: local, models: [demo], max_gpu_seconds: 60}
"""


@dataclass
class Live:
    """A running server. ``call`` runs a coroutine on its loop."""

    url: str
    state: ApiState
    server: Any
    loop: asyncio.AbstractEventLoop

    def call(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(START_SECONDS)


@contextmanager
def live(folder: Path, engine: FakeEngine | None = None, **settings: Any) -> Iterator[Live]:
    """Serve until the block ends; ``settings`` are `ApiSettings` fields."""
    found: list[Live] = []
    ready = threading.Event()
    over: list[Callable[[], None]] = []

    async def serve() -> None:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        async with serving(folder, engine or FakeEngine(), settings) as one:
            over.append(lambda: loop.call_soon_threadsafe(stop.set))
            found.append(one)
            ready.set()
            await stop.wait()

    thread = threading.Thread(target=lambda: asyncio.run(serve()), daemon=True)
    thread.start()
    assert ready.wait(START_SECONDS), "the server did not start"
    try:
        yield found[0]
    finally:
        over[0]()
        thread.join(START_SECONDS)
    assert not thread.is_alive(), "the server did not stop"


@asynccontextmanager
async def serving(
    folder: Path, engine: FakeEngine, settings: dict[str, Any]
) -> AsyncIterator[Live]:
    """Serve on the running loop."""
    clock = SystemClock()
    (folder / "weights").mkdir(exist_ok=True)
    (folder / "catalog.yaml").write_text(CATALOG)
    catalog = load_catalog(folder / "catalog.yaml")
    queue = MemoryJobQueue(lease_seconds=30, max_delivery_count=3, clock=clock)
    backends = Backends({"local": queue}, MemoryJobStore(clock), MemoryImageStore())
    state = make_state(
        settings=ApiSettings.model_validate({"watch_seconds": 0.02, **settings}),
        region="local",
        catalog=catalog,
        jobs=backends.jobs,
        images=backends.images,
        queues=backends.queues,
        clock=clock,
    )
    drain = Drain(5.0)
    thread = EngineThread(engine)
    pace = {"poll_seconds": 0.2, "progress_seconds": 0.0, "cancel_check_seconds": 0.0}
    worker = build_worker(
        DarkroomSettings.model_validate({}),
        WorkerSettings.model_validate(pace),
        catalog,
        catalog.pool("local"),
        backends,
        thread,
        drain,
        WorkerMetrics(CollectorRegistry()),
    )
    async with _uvicorn(state) as (server, url):
        working = asyncio.create_task(worker.run())
        try:
            yield Live(url, state, server, asyncio.get_running_loop())
        finally:
            drain.begin("test over")
            await working
            thread.close()


@asynccontextmanager
async def _uvicorn(state: ApiState) -> AsyncIterator[tuple[Any, str]]:
    import uvicorn

    config = uvicorn.Config(
        create_app(state), log_config=None, access_log=False, timeout_graceful_shutdown=5
    )
    server = Server(config, state)
    with socket.create_server(("127.0.0.1", 0), backlog=2048) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        task = asyncio.create_task(_run(server, listener))
        async with asyncio.timeout(START_SECONDS):
            while not server.started:
                await asyncio.sleep(0.01)
        try:
            yield server, url
        finally:
            server.should_exit = True
            await task


async def _run(server: Any, listener: socket.socket) -> None:
    """Serve without signal handlers, which only a main thread may set."""
    await server._serve([listener])
