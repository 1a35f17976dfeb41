"""Before a worker says that it is ready: its models are loaded and, if wished, have drawn once."""

from darkroom.catalog import Catalog, Model, Pool
from darkroom.errors import ModelUnavailable, OutOfMemory, Preempted, SettingsError
from darkroom.generation import Generation
from darkroom.log import get_logger
from worker.background import beside
from worker.claims import Spent
from worker.drain import Drain
from worker.engine_thread import EngineThread
from worker.engines.base import GenerationTask
from worker.models import locate
from worker.stopping import StopSignal

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


async def warm_up(
    models: tuple[Model, ...], catalog: Catalog, thread: EngineThread, drain: Drain, steps: int
) -> bool:
    """Load ``models``, the last one last; with ``steps``, each makes a picture of so many.

    Returns False when the drain began before the end. Raises `SettingsError` for a model that
    cannot be loaded here: a worker that cannot work must not take jobs only to fail them.
    """
    stop = StopSignal()
    async with beside(_when_draining(drain, stop), "warm-up"):
        for model in models:
            if drain.begun.is_set():
                break
            try:
                await _warm(model, catalog, thread, stop, steps)
            except Preempted:
                break
            except (ModelUnavailable, OutOfMemory) as error:
                raise SettingsError(f"warm-up: {error.message}", target=VARIABLE) from error
    return not drain.begun.is_set()


async def _warm(
    model: Model, catalog: Catalog, thread: EngineThread, stop: StopSignal, steps: int
) -> None:
    spent = Spent()
    await thread.load(model, locate(model, catalog), stop, spent)
    if steps and "text_to_image" in model.kinds:
        task = GenerationTask(_first_picture(model, steps))
        await thread.generate([task], lambda step, total, preview: stop.check(), spent)
    log.info(
        "model_warm",
        model=model.name,
        load_seconds=round(spent.load_seconds, 3),
        gpu_seconds=round(spent.gpu_seconds, 3),
    )


async def _when_draining(drain: Drain, stop: StopSignal) -> None:
    await drain.begun.wait()
    stop.set(Preempted("the worker is leaving"))


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
