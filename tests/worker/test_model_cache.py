"""Models come and go under a budget of bytes; the engine's own count is the judge."""

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from darkroom.catalog import Model
from darkroom.errors import ModelUnavailable, OutOfMemory
from darkroom.metrics import WorkerMetrics
from worker.engines.base import Footprint
from worker.engines.fake import FakeEngine
from worker.model_cache import DEVICE_SHARE, ModelCache

NOWHERE = Path("nowhere")


def model(name: str, revision: str = "1") -> Model:
    fields = {"seconds_per_megapixel_step": 1.0, "licence": "MIT"}
    return Model.model_validate({"name": name, "source": name, "revision": revision, **fields})


class Loads:
    """Which models an engine loaded, from disk or host, in order."""

    def __init__(self, fail: Callable[[Model], None] = lambda model: None) -> None:
        self.names: list[str] = []
        self._fail = fail

    def __call__(self, model: Model) -> None:
        self._fail(model)
        self.names.append(model.name)


def held(cache: ModelCache) -> tuple[str, str]:
    return "".join(cache.loaded), "".join(cache.parked)


def ask(cache: ModelCache, names: Sequence[str]) -> None:
    for name in names:
        cache.ready(model(name), NOWHERE)


def test_a_ready_model_is_not_loaded_again() -> None:
    loads = Loads()
    cache = ModelCache(FakeEngine(fail_load=loads), device_bytes=2)
    ask(cache, "aba")
    assert loads.names == ["a", "b"]
    assert cache.ready(model("a"), NOWHERE) == 0.0


def test_the_least_recently_used_goes_first_to_host_then_to_disk() -> None:
    loads = Loads()
    cache = ModelCache(FakeEngine(fail_load=loads, parks=True), device_bytes=2, host_bytes=1)
    ask(cache, "abac")
    assert held(cache) == ("ac", "b")
    ask(cache, "d")
    assert held(cache) == ("cd", "a")
    assert cache.bytes_held() == (2, 1)


def test_a_parked_model_comes_back_in_place_of_another() -> None:
    cache = ModelCache(FakeEngine(parks=True), device_bytes=1, host_bytes=2)
    ask(cache, "ab")
    assert held(cache) == ("b", "a")
    ask(cache, "a")
    assert held(cache) == ("a", "b")


def test_where_there_is_no_host_tier_what_makes_room_is_unloaded() -> None:
    cache = ModelCache(FakeEngine(), device_bytes=1, host_bytes=5)
    ask(cache, "ab")
    assert held(cache) == ("b", "")
    assert cache.bytes_held() == (1, 0)


def test_a_large_model_makes_as_much_room_as_it_needs() -> None:
    engine = FakeEngine(sizes={"a": 1, "b": 2, "c": 3, "x": 5})
    cache = ModelCache(engine, device_bytes=6)
    ask(cache, "abc")
    assert held(cache) == ("abc", "")
    ask(cache, "x")
    assert held(cache) == ("x", "")


def test_a_model_over_the_whole_budget_is_refused_and_the_others_stay() -> None:
    cache = ModelCache(FakeEngine(sizes={"x": 4}), device_bytes=3)
    ask(cache, "ab")
    with pytest.raises(
        ModelUnavailable, match=r"model x takes 4 bytes on this device; the budget .* is 3"
    ):
        ask(cache, "x")
    assert held(cache) == ("ab", "")


def test_a_device_with_less_room_than_its_budget_sheds_until_the_load_succeeds() -> None:
    cache = ModelCache(FakeEngine(total_bytes=3), device_bytes=10)
    ask(cache, "abcd")
    assert held(cache) == ("bcd", "")


def test_a_model_that_fits_beside_nothing_is_out_of_memory() -> None:
    cache = ModelCache(FakeEngine(sizes={"x": 5}, total_bytes=3), device_bytes=10)
    ask(cache, "a")
    with pytest.raises(OutOfMemory):
        ask(cache, "x")
    assert held(cache) == ("", "")
    ask(cache, "a")


def test_without_a_budget_a_share_of_the_device_is_left_for_pictures() -> None:
    cache = ModelCache(FakeEngine(total_bytes=8))
    assert cache.device_budget_bytes == 8 * DEVICE_SHARE
    ask(cache, "abcdefgh")
    assert held(cache) == ("cdefgh", "")


def test_without_a_budget_on_a_device_of_unknown_size_everything_stays() -> None:
    cache = ModelCache(FakeEngine())
    ask(cache, "abcdefgh")
    assert held(cache) == ("abcdefgh", "")


def test_a_changed_catalog_entry_is_loaded_anew() -> None:
    loads = Loads()
    cache = ModelCache(FakeEngine(fail_load=loads, parks=True), device_bytes=1)
    ask(cache, "ab")
    cache.ready(model("a", revision="2"), NOWHERE)
    cache.ready(model("a", revision="3"), NOWHERE)
    assert loads.names == ["a", "b", "a", "a"]
    assert held(cache) == ("a", "b")


def test_a_load_that_fails_leaves_nothing_of_that_model() -> None:
    def damaged(model: Model) -> None:
        if model.name == "x":
            raise ModelUnavailable("damaged", target="model")

    cache = ModelCache(FakeEngine(fail_load=damaged), device_bytes=2)
    ask(cache, "a")
    with pytest.raises(ModelUnavailable):
        ask(cache, "x")
    assert held(cache) == ("a", "")


def test_a_batch_that_needs_the_device_for_itself_can_shed_the_others() -> None:
    cache = ModelCache(FakeEngine(parks=True), device_bytes=3, host_bytes=3)
    ask(cache, "abc")
    assert cache.shed(keep="b")
    assert cache.shed(keep="b")
    assert not cache.shed(keep="b")
    assert held(cache) == ("b", "ac")


def test_loads_evictions_and_bytes_are_counted() -> None:
    metrics = WorkerMetrics(CollectorRegistry())
    engine = FakeEngine(sizes={"a": 5, "b": 7, "c": 6}, parks=True)
    cache = ModelCache(engine, device_bytes=7, host_bytes=7, metrics=metrics)
    ask(cache, "abac")

    def count(name: str, **labels: str) -> float | None:
        return metrics.registry.get_sample_value(name, labels)

    assert count("darkroom_model_loads_total", model="a", source="disk") == 1
    assert count("darkroom_model_loads_total", model="a", source="host") == 1
    assert count("darkroom_model_evictions_total", model="a", to="host") == 2
    assert count("darkroom_model_evictions_total", model="b", to="disk") == 1
    assert count("darkroom_model_bytes", tier="device") == 6
    assert count("darkroom_model_bytes", tier="host") == 5


class Offloading(FakeEngine):
    """Models whose weights rest on the host, and take one byte of the device."""

    def expect(self, model: Model, folder: Path) -> Footprint:
        return Footprint(1, super().expect(model, folder).device_bytes)

    def footprint(self, name: str) -> Footprint:
        held = super().footprint(name).device_bytes
        return Footprint(1, held) if held else Footprint()


def test_offloaded_models_are_kept_within_the_budget_of_the_host() -> None:
    engine = Offloading(sizes={"a": 4, "b": 4, "x": 11}, parks=True)
    cache = ModelCache(engine, device_bytes=9, host_bytes=10)
    ask(cache, "abc")
    assert cache.bytes_held() == (3, 9)
    ask(cache, "d")
    assert cache.bytes_held() == (4, 10)
    ask(cache, "e")
    assert held(cache) == ("bcde", "")
    with pytest.raises(ModelUnavailable, match="model x takes 11 bytes in host memory"):
        ask(cache, "x")


class Strict(FakeEngine):
    """Fails the test as soon as a tier holds more than it may, while loading too."""

    def __init__(self, sizes: dict[str, int], device: int, host: int) -> None:
        super().__init__(sizes=sizes, parks=True)
        self._names, self._device, self._host = sizes, device, host

    def load(self, model: Model, folder: Path) -> None:
        super().load(model, folder)
        self._check()

    def park(self, name: str) -> None:
        super().park(name)
        self._check()

    def _check(self) -> None:
        sizes = [self.footprint(name) for name in self._names]
        assert sum(one.device_bytes for one in sizes) <= self._device
        assert sum(one.host_bytes for one in sizes) <= self._host


@given(
    sizes=st.lists(st.integers(1, 9), min_size=6, max_size=6),
    device=st.integers(1, 20),
    host=st.integers(1, 20),
    asked=st.lists(st.sampled_from("abcdef"), max_size=30),
)
def test_no_tier_is_ever_over_its_budget(
    sizes: list[int], device: int, host: int, asked: list[str]
) -> None:
    size_of = dict(zip("abcdef", sizes, strict=True))
    engine = Strict(size_of, device, host)
    cache = ModelCache(engine, device, host)
    for name in asked:
        if size_of[name] > device:
            with pytest.raises(ModelUnavailable):
                ask(cache, name)
        else:
            ask(cache, name)
            assert cache.loaded[-1] == name
        ready = {one for one in size_of if engine.footprint(one).device_bytes}
        parked = {one for one in size_of if engine.footprint(one).host_bytes}
        assert (ready, parked) == (set(cache.loaded), set(cache.parked))
