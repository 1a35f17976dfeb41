"""Whatever the backlog, job lengths and the cluster do: no busy worker has to go, and none stays.

The rendered ScaledObjects are played by the formulae of KEDA and of the HPA (`autoscaling.py`), for
both readings of whether the broker counts locked messages as active.

"Has to go" is judged by what could be known: a worker that took its job after the last scrape may
be asked to leave. It ends its job first, because its grace period covers the pool's longest job; a
test holds the rendered pods to that.
"""

import copy
from typing import Any

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.charts import helm
from tests.charts.autoscaled_cluster import Cluster, Seen, Weather
from tests.charts.autoscaling import Hpa
from tests.charts.helm import Object

Pool = tuple[Object, dict[str, Any], Object]
"""A ScaledObject's spec, its pool in the catalog, and the worker's pod spec."""


def pools() -> dict[str, Pool]:
    """Every pool that KEDA scales in any scenario; pools that render alike once."""
    found: dict[str, Pool] = {}
    for scenario in helm.scenarios("darkroom"):
        objects = helm.render("darkroom", scenario=scenario)
        for scaled in helm.of_kind(objects, "ScaledObject"):
            if len(scaled["spec"]["triggers"]) < 2:
                continue  # without Prometheus, which the values say gives up this property
            deployment = next(
                one
                for one in helm.of_kind(objects, "Deployment")
                if one["metadata"]["name"] == scaled["spec"]["scaleTargetRef"]["name"]
            )
            queue = scaled["spec"]["triggers"][0]["metadata"]["queueName"]
            pool = next(one for one in catalog(objects)["pools"] if one["name"] == queue)
            same = [
                one
                for one in found.values()
                if unnamed(one[0]) == unnamed(scaled["spec"])
                and one[1].get("concurrency") == pool.get("concurrency")
            ]
            if not same:
                spec = deployment["spec"]["template"]["spec"]
                found[f"{scenario}-{queue}"] = (scaled["spec"], pool, spec)
    return found


def catalog(objects: list[Object]) -> dict[str, Any]:
    maps = [one["data"] for one in helm.of_kind(objects, "ConfigMap")]
    (text,) = {data["catalog.yaml"] for data in maps if "catalog.yaml" in data}
    read: dict[str, Any] = yaml.safe_load(text)
    return read


def unnamed(spec: Object) -> Object:
    """A ScaledObject's spec without the names of queues, namespaces and addresses."""
    kept = {key: value for key, value in spec.items() if key != "scaleTargetRef"}
    numbers = ("messageCount", "activationMessageCount", "threshold", "activationThreshold")
    kept["triggers"] = [
        {key: one["metadata"].get(key) for key in numbers} for one in spec["triggers"]
    ]
    return kept


POOLS = pools()


@st.composite
def weathers(draw: st.DrawFn, longest: int) -> Weather:
    """Bursts of jobs with quiet between them, up to the pool's longest; nodes and metrics fail."""
    jobs: list[tuple[int, int]] = []
    at = 0
    for _ in range(draw(st.integers(1, 4))):
        at += draw(st.integers(0, 1500))
        lengths = draw(st.lists(st.integers(5, longest), min_size=1, max_size=12))
        jobs += [(at + draw(st.integers(0, 60)), takes) for takes in lengths]
    losses = draw(st.lists(st.integers(0, at + longest), max_size=2))
    away = draw(
        st.lists(
            st.tuples(
                st.sampled_from(["prometheus", "azure-servicebus"]),
                st.integers(0, at + longest),
                st.integers(10, 900),
            ),
            max_size=1,
        )
    )
    return Weather(
        locked_are_active=draw(st.booleans()),
        jobs=tuple(jobs),
        losses=tuple(losses),
        away=tuple((kind, begins, begins + lasts) for kind, begins, lasts in away),
        start_seconds=draw(st.sampled_from([10, 120, 400])),
        window=draw(st.booleans()),
    )


def play(spec: Object, pool: dict[str, Any], weather: Weather) -> Seen:
    """Run a cluster long enough for everything to end and to go back to rest."""
    last = max(arrives for arrives, _ in weather.jobs)
    work = sum(takes for _, takes in weather.jobs) + 3 * weather.start_seconds
    rest = spec["cooldownPeriod"] + 2 * spec["pollingInterval"] + 60
    outages = max((ends for _, _, ends in weather.away), default=0)
    until = max(last, outages, *weather.losses, 0) + work + rest
    return Cluster(spec, weather, int(pool.get("concurrency", 1))).run(until)


def waves(seconds: int, locked_are_active: bool, away: bool = False) -> Weather:
    """A backlog of many long jobs: each worker runs several, one after the other."""
    lost = (("prometheus", 150, 8 * seconds),) if away else ()
    return Weather(locked_are_active, ((0, seconds),) * 24, away=lost, start_seconds=10)


def relay(seconds: int, locked_are_active: bool, away: bool = False) -> Weather:
    """Four long jobs, and another four at the moment when their workers are free: nothing waits."""
    jobs = ((0, seconds),) * 4 + ((seconds + 25, seconds),) * 4
    lost = (("prometheus", 150, 4 * seconds),) if away else ()
    return Weather(locked_are_active, jobs, away=lost, start_seconds=10)


@pytest.mark.parametrize("name", POOLS)
def test_no_busy_worker_has_to_go_and_no_backlog_means_no_workers(name: str) -> None:
    spec, pool, _ = POOLS[name]

    @given(weathers(int(pool["max_gpu_seconds"])))
    @settings(max_examples=30)
    def holds(weather: Weather) -> None:
        seen = play(spec, pool, weather)
        assert seen.unneeded_evictions == []
        assert seen.ended == len(weather.jobs)
        if spec["minReplicaCount"] == 0:
            assert seen.at_rest_since is not None, "workers stay with nothing to do"
        else:
            assert seen.replicas >= spec["minReplicaCount"]
        assert seen.largest <= spec["maxReplicaCount"]

    longest = int(pool["max_gpu_seconds"])
    for kind in (waves, relay):
        for locked in (True, False):
            holds = example(kind(longest, locked))(holds)
        holds = example(kind(longest, False, away=True))(holds)
    holds()


@pytest.mark.parametrize("name", POOLS)
def test_a_worker_that_has_to_go_may_end_its_longest_job(name: str) -> None:
    _, pool, pod = POOLS[name]
    assert pod["terminationGracePeriodSeconds"] >= pool["max_gpu_seconds"] + 30  # and store it


def mutated(*, message_count: str = "1", triggers: int = 2, behavior: str = "") -> Object:
    """The rendered ScaledObject of a pool of long jobs with other triggers."""
    spec, _, _ = max(POOLS.values(), key=lambda one: float(one[1]["max_gpu_seconds"]))
    changed: Object = copy.deepcopy(spec)
    changed["maxReplicaCount"] = 8
    backlog, in_flight = changed["triggers"]
    backlog["metadata"]["messageCount"] = message_count
    changed["triggers"] = [backlog, in_flight][:triggers]
    if behavior == "none":
        del changed["fallback"]
    elif behavior:
        changed["fallback"]["behavior"] = behavior
    return changed


POOL_OF_ONE = {"concurrency": 1}
FIVE = {"message_count": "5", "triggers": 1}
BAD: dict[str, tuple[dict[str, Any], Weather]] = {
    "KEDA's default of 5 messages a replica": (FIVE, waves(600, locked_are_active=True)),
    "5 a replica, and locked ones not counted": (FIVE, waves(600, locked_are_active=False)),
    "1 a replica, and nobody counts who is busy": ({"triggers": 1}, relay(600, False)),
    "a fallback to one replica": ({"behavior": "static"}, relay(600, False, away=True)),
    "no fallback": ({"behavior": "none"}, relay(600, False, away=True)),
}


@pytest.mark.parametrize("what", BAD)
def test_a_known_bad_scaled_object_fails(what: str) -> None:
    changes, weather = BAD[what]
    assert play(mutated(**changes), POOL_OF_ONE, weather).unneeded_evictions
    assert play(mutated(), POOL_OF_ONE, weather).unneeded_evictions == []


def test_an_activation_that_is_too_high_leaves_a_job_waiting_for_ever() -> None:
    wrong = mutated()
    wrong["triggers"][0]["metadata"]["activationMessageCount"] = "1"
    alone = Weather(locked_are_active=False, jobs=((0, 60),), start_seconds=10)
    assert play(wrong, POOL_OF_ONE, alone).ended == 0


def hpa(**down: Any) -> Hpa:
    behavior = {"scaleUp": {}, "scaleDown": down}
    config = {"advanced": {"horizontalPodAutoscalerConfig": {"behavior": behavior}}}
    return Hpa({**config, "minReplicaCount": 0, "maxReplicaCount": 100})


def test_the_model_of_the_hpa_gives_the_documented_answers() -> None:
    at_once = {"stabilizationWindowSeconds": 0}
    slow = {"policies": [{"type": "Pods", "value": 1, "periodSeconds": 60}]}
    assert hpa(**at_once).sync(0, 4, [(4.0, 5.0)]) == 1  # ceil(4 / 5): three busy ones go
    assert hpa(**at_once, **slow).sync(0, 4, [(4.0, 5.0)]) == 3
    assert hpa(**at_once).sync(0, 10, [(10.5, 1.0)]) == 10  # within the tolerance
    assert hpa(**at_once).sync(0, 1, [(50.0, 1.0)]) == 5  # the larger of 100 % and 4 more
    assert hpa(**at_once).sync(0, 10, [(50.0, 1.0)]) == 20
    assert hpa(**at_once).sync(0, 4, [(2.0, 1.0), (3.0, 1.0)]) == 3  # the larger wish, not the sum
    assert hpa(**at_once).sync(0, 4, [(None, 1.0), (1.0, 1.0)]) == 4  # one is missing: none goes
    assert hpa(**at_once).sync(0, 4, [(None, 1.0), (8.0, 1.0)]) == 8


def test_the_model_of_the_hpa_remembers_what_was_needed() -> None:
    one = hpa(policies=[{"type": "Pods", "value": 1, "periodSeconds": 60}])
    assert one.sync(0, 5, [(5.0, 1.0)]) == 5
    assert one.sync(285, 5, [(1.0, 1.0)]) == 5  # five were needed less than 300 s ago
    assert one.sync(315, 5, [(1.0, 1.0)]) == 4
    assert one.sync(330, 4, [(1.0, 1.0)]) == 4  # one a minute
    assert one.sync(390, 4, [(1.0, 1.0)]) == 3
