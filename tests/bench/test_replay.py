"""The replay plays what it says it plays; what it finds on a small trace holds there too."""

import csv
import gzip
import io
import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from bench import replay, replay_pools
from bench.replay_batching import Batching, parse_points
from bench.replay_pool import LOAD_MEDIAN_SECONDS, Pool, Setting, busy_share
from bench.replay_simple import in_order, loaded_once, per_model
from bench.replay_trace import COLUMNS, TraceJob, generate, numbered, read
from bench.replay_window import darkroom
from worker.scheduler import Rules

SMALL = generate(600)
SETTING = Setting(workers=4, speed=20.0)


def job(
    number: int, arrival: float, model: str, seconds: float = 10.0, images: int = 1
) -> TraceJob:
    return TraceJob(number, arrival, "t", "text_to_image", model, 0, images, 30, seconds)


def load_times(count: int) -> list[float]:
    pool = Pool([], Setting())
    device = pool.devices[0]
    return [pool.load(device, str(number)) for number in range(count)]


def test_in_order_a_job_waits_for_the_older_one_and_for_its_own_load():
    one, other, third = load_times(3)
    jobs = [job(0, 0, "a"), job(1, 1, "b"), job(2, 2, "a")]
    outcome = in_order(jobs, Setting(workers=1, fits=1))
    second = one + 10 + other
    assert outcome.waits == pytest.approx([one, second - 1, second + 10 + third - 2])
    assert (outcome.loads, outcome.run_seconds) == (3, 30.0)
    assert outcome.end == pytest.approx(outcome.gpu_seconds)


def test_a_worker_that_fits_both_models_loads_each_once():
    jobs = [job(0, 0, "a"), job(1, 1, "b"), job(2, 2, "a")]
    assert in_order(jobs, Setting(workers=1, fits=2)).loads == 2


def test_the_least_recently_used_pipeline_is_evicted():
    jobs = [job(n, n, model) for n, model in enumerate("abacab")]
    assert in_order(jobs, Setting(workers=1, fits=2)).loads == 4


def test_a_queue_per_model_is_served_until_it_is_empty():
    jobs = [job(n, n, model) for n, model in enumerate("abababab")]
    outcome = per_model(jobs, Setting(workers=1, fits=1))
    assert outcome.loads == 2
    assert max(outcome.starts[::2]) < min(outcome.starts[1::2])


def test_load_times_have_the_median_and_ninth_decile_of_the_service():
    times = sorted(load_times(4000))
    assert times[2000] == pytest.approx(LOAD_MEDIAN_SECONDS, rel=0.05)
    assert times[3600] == pytest.approx(42.0, rel=0.07)


def test_the_same_seed_gives_the_same_run_and_another_seed_another():
    first, again = (darkroom(SMALL, SETTING, Rules())[0] for _ in range(2))
    assert first == again
    assert darkroom(SMALL, replace(SETTING, seed=1), Rules())[0].waits != first.waits


def test_every_policy_runs_every_job_once_and_none_does_it_for_less_than_the_bound():
    least = loaded_once(SMALL, SETTING)
    ours, _ = darkroom(SMALL, SETTING, Rules())
    seconds = pytest.approx(sum(job.seconds for job in SMALL))
    for outcome in (in_order(SMALL, SETTING), per_model(SMALL, SETTING), ours, least):
        assert outcome.run_seconds == seconds
        assert min(outcome.waits) >= 0
        assert outcome.gpu_seconds >= least.gpu_seconds
    assert least.loads == len({job.model for job in SMALL})


def test_arrivals_are_sped_up_until_first_in_first_out_is_as_busy_as_asked():
    speed = replay.speed_for(SMALL, SETTING, 0.6)
    outcome = in_order(SMALL, replace(SETTING, fits=1, speed=speed))
    assert busy_share(outcome, 4) == pytest.approx(0.6, abs=0.002)


@pytest.mark.parametrize("busy", [0.7, 0.9])
def test_ours_saves_loads_waits_no_longer_than_lru_and_keeps_its_bound(busy):
    report = replay.replay(SMALL, SETTING, busy, Rules(), Batching())
    ours, lru = report.policies["darkroom"], report.policies["lru"]
    assert ours.loads < 0.8 * lru.loads
    assert ours.p95_wait_s <= lru.p95_wait_s
    assert report.bound["over_by_estimates_s"] == 0


def test_a_pool_without_patience_overtakes_nobody():
    _, ledger = darkroom(SMALL, SETTING, Rules(patience=0.0))
    assert max(ledger.extra) == 0


def test_a_replay_would_tell_if_the_bound_were_broken(monkeypatch):
    monkeypatch.setattr("worker.scheduler.bound_seconds", lambda *_: float("inf"))
    _, ledger = darkroom(SMALL, replace(SETTING, speed=200.0), Rules())
    assert ledger.misjudged > 0


def test_no_message_waits_while_a_worker_is_free_for_longer_than_a_look_at_the_depth():
    """Two long jobs hold two workers; what these leased ahead goes to the other two."""
    jobs = [job(n, 0.1 * n, "a", seconds=500.0 if n < 2 else 20.0) for n in range(40)]
    outcome, _ = darkroom(jobs, Setting(workers=4), Rules())
    assert max(outcome.starts) < 500


def test_a_free_worker_that_has_the_model_gets_the_job():
    jobs = [job(n, 300.0 * n, "ab"[n % 2]) for n in range(20)]
    outcome, ledger = darkroom(jobs, Setting(workers=4, fits=1), Rules())
    assert outcome.loads == 2
    assert ledger.handed_on > 0


def test_batches_take_what_their_pictures_take_at_the_measured_speed():
    batching = Batching(8, 8, parse_points("4:2,8:3"))
    assert [batching.speed_up(pictures) for pictures in (1, 2, 4, 6, 8, 20)] == pytest.approx(
        [1, 4 / 3, 2, 2.5, 3, 3]
    )
    assert batching.seconds([job(0, 0, "a"), job(1, 0, "a")]) == pytest.approx(20 / (4 / 3))
    assert batching.seconds([job(0, 0, "a", images=4)]) == 10.0
    assert Batching(8, 8).seconds([job(0, 0, "a"), job(1, 0, "a", 5.0)]) == 15.0


@pytest.mark.parametrize("text", ["8", "0:2", "8:0", "a:b"])
def test_a_speed_up_that_is_none_is_refused(text):
    with pytest.raises(ValueError):
        parse_points(text)


def test_batching_at_the_measured_speed_spends_less_than_batching_that_gains_nothing():
    setting = replace(SETTING, speed=100.0)
    unhurried, _ = darkroom(SMALL, setting, Rules(), Batching(8, 8))
    batched, _ = darkroom(SMALL, setting, Rules(), Batching(8, 8, parse_points("8:2.2")))
    assert unhurried.run_seconds == pytest.approx(sum(job.seconds for job in SMALL))
    assert batched.run_seconds < unhurried.run_seconds


def write(path: Path, rows: list[dict[str, object]], columns: tuple[str, ...] = COLUMNS) -> Path:
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, extrasaction="ignore")
    writer.writeheader()
    writer.writerows(rows)
    data = text.getvalue().encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


ROW = {
    **{"arrival_s": 5, "tenant": "t", "kind": "text_to_image", "model": "m", "loras": 0},
    **{"images": 1, "steps": 30, "prompt_chars": 9, "exec_s": 4.5, "status": "succeed"},
}


@pytest.mark.parametrize("name", ["trace.csv", "trace.csv.gz"])
def test_a_trace_is_read_in_order_of_arrival_with_whatever_held_a_device(tmp_path, name):
    rows = [ROW, {**ROW, "arrival_s": 2, "status": "failed"}, {**ROW, "exec_s": 0}]
    jobs = read(write(tmp_path / name, rows))
    assert [(job.number, job.arrival, job.seconds) for job in jobs] == [(0, 0, 4.5), (1, 3, 4.5)]


def test_a_trace_without_a_column_or_with_a_wrong_number_is_refused_by_name(tmp_path):
    with pytest.raises(ValueError, match="status"):
        read(write(tmp_path / "a.csv", [ROW], COLUMNS[:-1]))
    with pytest.raises(ValueError, match="line 2"):
        read(write(tmp_path / "b.csv", [{**ROW, "steps": "many"}]))


def test_the_command_ends_with_the_policies_figures_in_one_line(tmp_path, monkeypatch, capsys):
    trace = write(
        tmp_path / "trace.csv",
        [
            {**ROW, "arrival_s": job.arrival, "model": job.model, "exec_s": job.seconds}
            for job in SMALL[:150]
        ],
    )
    every = tmp_path / "every.json"
    words = ["replay", "--trace", str(trace), "--seed", "3", "--json", str(every)]
    monkeypatch.setattr(sys, "argv", words)
    replay.main()
    last = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert list(last) == ["fifo", "lru", "per_model", "darkroom", "clairvoyant"]
    fields = ["gpu_seconds", "loads", "p50_wait_s", "p95_wait_s", "worst_extra_wait_s"]
    assert all(list(figures) == fields for figures in last.values())
    assert set(json.loads(every.read_text())["batching"]) == {
        "affinity alone",
        "and batching, no speed-up",
        "and batching, as measured",
    }


def test_halves_are_counted_in_jobs_and_begin_at_zero():
    halves = [replay.part_of(SMALL, part) for part in ("first", "second")]
    assert [len(half) for half in halves] == [300, 300]
    assert halves[1][0].arrival == 0
    assert [job.seconds for half in halves for job in half] == [job.seconds for job in SMALL]


def test_the_generated_trace_is_the_same_every_time():
    assert generate(50) == generate(50) == numbered(generate(50))
    assert generate(50, seed=2) != generate(50)


def test_long_jobs_delay_no_short_one_beyond_its_bound_when_pools_are_split_as_documented():
    catalog = replay_pools.documented()
    found = replay_pools.delays_of_short_jobs(catalog, replay_pools.traffic(catalog, minutes=15))
    assert len(found.delays) > 1000
    assert found.over == 0


def test_the_same_long_jobs_delay_short_ones_beyond_their_bound_in_one_pool():
    catalog = replay_pools.documented()
    pools = replay_pools.in_one_pool(catalog)
    found = replay_pools.delays_of_short_jobs(pools, replay_pools.traffic(catalog, minutes=15))
    assert found.over > 100
    assert found.worst > 20
