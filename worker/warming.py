"""Before a worker says that it is ready: its models are loaded and, if wished, have drawn once."""

import asyncio
import gc
import time
from collections.abc import Iterator
from contextlib import contextmanager

from darkroom.catalog import Catalog, Model, Pool
from darkroom.errors import ModelUnavailable, OutOfMemory, SettingsError
from darkroom.generation import Generation
from darkroom.log import get_logger
from worker.drain import Drain
from worker.engine_thread import EngineThread
from worker.engines.base import GenerationStopped, GenerationTask, Preview
from worker.models import locate

VARIABLE = "DARKROOM_WORKER_WARM_MODELS"

log = get_logger()


def models_to_warm(wanted: str, catalog: Catalog, pool: Pool) -> tuple[Model, ...]:
    """Return the models of ``pool`` that ``wanted`` names, in its order; see `WorkerSettings`.

    Raises `SettingsError` for one that the pool does not serve.
    """
    chosen: list[str] = []
    for name in (word.strip() for word in wanted.split(",")):
        if name == "all":
            chosen.extend(pool.models)
        elif name == "default":
            known = catalog.default_model in pool.models
            chosen.append(catalog.default_model if known else pool.models[0])
        elif name in pool.models:
            chosen.append(name)
        elif name:
            raise SettingsError(
                f"{VARIABLE}: pool {pool.name} serves no {name}; it has: {', '.join(pool.models)}",
                target=VARIABLE,
            )
    return tuple(catalog.model(name) for name in dict.fromkeys(chosen))


@contextmanager
def uncollected() -> Iterator[None]:
    """Collect no cyclic garbage while the block runs.

    What torch, diffusers and transformers import lives on, and every full collection visits all of
    it: a sixth of a start's processor time (`bench.cold_start`). An engine that frees a model
    collects by itself.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


async def warm_up(
    models: tuple[Model, ...], catalog: Catalog, thread: EngineThread, drain: Drain, steps: int
) -> bool:
    """Load ``models``, the last one last; with ``steps``, each makes a picture of so many.

    Returns False when the drain began before the end; what the engine does then goes on behind.
    Raises `SettingsError` for a model that cannot be loaded here: a worker that cannot work must
    not take jobs only to fail them.
    """
    leaving = asyncio.ensure_future(drain.begun.wait())
    try:
        for model in models:
            warming = asyncio.create_task(_warm(model, catalog, thread, drain, steps))
            await asyncio.wait({warming, leaving}, return_when=asyncio.FIRST_COMPLETED)
            if drain.begun.is_set():
                warming.add_done_callback(lambda done: done.cancelled() or done.exception())
                return False
            await warming
    except (ModelUnavailable, OutOfMemory) as error:
        raise SettingsError(f"warm-up: {error.message}", target=VARIABLE) from error
    finally:
        leaving.cancel()
    return not drain.begun.is_set()


async def _warm(
    model: Model, catalog: Catalog, thread: EngineThread, drain: Drain, steps: int
) -> None:
    load_seconds = await thread.load(model, locate(model, catalog))
    started = time.perf_counter()
    if steps and "text_to_image" in model.kinds:
        task = GenerationTask(_first_picture(model, steps))

        def step_done(step: int, total: int, preview: Preview) -> None:
            if drain.begun.is_set():
                raise GenerationStopped

        await thread.submit(lambda: thread.generate([task], step_done))
    picture_seconds = time.perf_counter() - started
    log.info(
        "model_warm",
        model=model.name,
        load_seconds=round(load_seconds, 3),
        picture_seconds=round(picture_seconds, 3),
    )


def _first_picture(model: Model, steps: int) -> Generation:
    """A picture of the size that most jobs will ask for: kernels are chosen and compiled by it."""
    usual = model.defaults
    return Generation(
        model=model.name,
        prompt="",
        negative_prompt="",
        width=usual.width,
        height=usual.height,
        num_inference_steps=steps,
        guidance_scale=usual.guidance_scale,
        num_images=1,
        seed=0,
        scheduler=model.scheduler,
    )
