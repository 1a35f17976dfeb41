"""Which models are in memory: the most recently used, within a budget of bytes for each tier.

Three tiers: the device, where a model can generate; host memory, from where it comes back in a
second or so; the disk. What makes room goes one tier down at a time, least recently used first
unless the scheduler knows better (``evict_first``).
Room is made before a load, by what the files' headers say, so the budget holds while loading too.
Used on the engine's thread only, except for the properties, which may be read from anywhere.
"""

import time
from pathlib import Path

from darkroom.catalog import Model
from darkroom.errors import ModelUnavailable, OutOfMemory
from darkroom.metrics import WorkerMetrics
from worker.engines.base import Engine, Footprint

DEVICE_SHARE = 0.75
"""Of the device, without a budget: the rest is for latents, activations and the decoding."""

HOST_SHARE = 0.5
"""Of host memory, without a budget: the rest is the process's own, and the page cache's."""


NOTHING = Footprint()


class ModelCache:
    """Makes models ready, and puts others away for them.

    A budget of 0 bytes is `DEVICE_SHARE` or `HOST_SHARE` of what there is; where that is not known,
    there is no bound. On a CPU, whose device memory is the host's, ``host_bytes`` has no meaning.
    """

    def __init__(
        self,
        engine: Engine,
        device_bytes: int = 0,
        host_bytes: int = 0,
        metrics: WorkerMetrics | None = None,
    ) -> None:
        memory = engine.memory()
        self._engine = engine
        self._parks = engine.describe().parks
        self._device_budget = device_bytes or int(memory.total_bytes * DEVICE_SHARE)
        self._host_budget = host_bytes or int(memory.host_total_bytes * HOST_SHARE)
        self._metrics = metrics
        self.evict_first: tuple[str, ...] = ()
        self._ready: dict[str, Model] = {}  # least recently used first
        self._parked: dict[str, Model] = {}

    @property
    def loaded(self) -> tuple[str, ...]:
        """The models on the device, least recently used first."""
        return tuple(self._ready)

    @property
    def parked(self) -> tuple[str, ...]:
        """The models in host memory alone, those that were parked first first."""
        return tuple(self._parked)

    @property
    def device_budget_bytes(self) -> int:
        """The most that models may take of the device; 0: no bound."""
        return self._device_budget

    def ready(self, model: Model, folder: Path) -> float:
        """Have ``model``, whose files are in ``folder``, on the device; return the seconds it took.

        An entry that was changed since is loaded anew. Raises `ModelUnavailable` for a model over
        the whole budget, or as the engine does; `OutOfMemory` when the device has no room for it
        alone.
        """
        name = model.name
        if self._ready.get(name) == model:
            self._ready[name] = self._ready.pop(name)
            self._make_room(NOTHING, name)  # adapters may have been attached since
            return 0.0
        if name in self._ready or (name in self._parked and self._parked[name] != model):
            self.drop(name)
        started = time.perf_counter()
        source = "host" if name in self._parked else "disk"
        self._make_room(self._size(model, folder), name)
        self._load(model, folder)
        self._ready[name] = model
        self._parked.pop(name, None)
        self._make_room(NOTHING, name)  # what it takes is now known to the byte
        if self._metrics is not None:
            self._metrics.model_loads.labels(name, source).inc()
        self._tell()
        return time.perf_counter() - started

    def drop(self, name: str) -> None:
        """Free the model on every tier; harmless when it is not held."""
        self._ready.pop(name, None)
        self._parked.pop(name, None)
        self._engine.unload(name)
        self._tell()

    def bytes_held(self) -> tuple[int, int]:
        """Return what the models take now, to the byte, on the device and of the host."""
        sizes = [self._engine.footprint(name) for name in (*self._ready, *self._parked)]
        return sum(one.device_bytes for one in sizes), sum(one.host_bytes for one in sizes)

    def shed(self, keep: str) -> bool:
        """Put one model but ``keep`` away; False when there is none.

        The first of ``evict_first``, then the least recently used. For a load, and for a batch that
        ran out of memory beside models that it does not need.
        """
        order = (*self.evict_first, *self._ready)
        one = next((name for name in order if name in self._ready and name != keep), None)
        if one is None:
            return False
        self._put_away(one, keep)
        self._tell()
        return True

    def _size(self, model: Model, folder: Path) -> Footprint:
        size = self._engine.expect(model, folder)
        for bytes_, budget, place in (
            (size.device_bytes, self._device_budget, "on this device"),
            (size.host_bytes, self._host_budget, "in host memory"),
        ):
            if 0 < budget < bytes_:
                raise ModelUnavailable(
                    f"model {model.name} takes {bytes_:,} bytes {place}; the budget for models"
                    f" there is {budget:,}",
                    target="model",
                )
        return size

    def _make_room(self, size: Footprint, keep: str) -> None:
        while 0 < self._device_budget < self.bytes_held()[0] + size.device_bytes:
            if not self.shed(keep):
                break
        self._make_host_room(size.host_bytes, keep)

    def _load(self, model: Model, folder: Path) -> None:
        """Load; each time the device has no room after all, with one model fewer beside it."""
        while True:
            try:
                self._engine.load(model, folder)
                return
            except OutOfMemory:
                if not self.shed(model.name):
                    raise

    def _put_away(self, name: str, keep: str) -> None:
        """Move a ready model one tier down: to the host where there is room, else to disk."""
        model = self._ready.pop(name)
        size = self._engine.footprint(name)
        if self._parks and size.host_bytes == 0 and self._make_host_room(size.device_bytes, keep):
            self._engine.park(name)
            self._parked[name] = model
            self._count(name, "host")
        else:
            self._engine.unload(name)
            self._count(name, "disk")

    def _make_host_room(self, size: int, keep: str) -> bool:
        """Drop what is in host memory, oldest first, until ``size`` fits; False when it cannot.

        Parked models go first, then ready ones whose weights rest there; ``keep`` never.
        """
        if self._host_budget == 0 or size == 0:
            return True
        if size + self._engine.footprint(keep).host_bytes > self._host_budget:
            return False
        while self.bytes_held()[1] + size > self._host_budget:
            oldest = next(
                (
                    name
                    for name in (*self._parked, *self._ready)
                    if self._is_on_host(name) and name != keep
                ),
                None,
            )
            if oldest is None:
                return False
            self._parked.pop(oldest, None)
            self._ready.pop(oldest, None)
            self._engine.unload(oldest)
            self._count(oldest, "disk")
        return True

    def _is_on_host(self, name: str) -> bool:
        return self._engine.footprint(name).host_bytes > 0

    def _count(self, name: str, to: str) -> None:
        if self._metrics is not None:
            self._metrics.model_evictions.labels(name, to).inc()

    def _tell(self) -> None:
        if self._metrics is not None:
            device, host = self.bytes_held()
            self._metrics.model_bytes.labels("device").set(device)
            self._metrics.model_bytes.labels("host").set(host)
