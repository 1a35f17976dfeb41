"""The dashboard of jobs: how many, how long they wait, what failed, what it cost."""

from panels import Json, Panel, Query, Row, Variable, dashboard

POOL = 'pool=~"$pool"'
BOTH = f'{POOL},model=~"$model"'
RATE = "[$__rate_interval]"


def rate(series: str, by: str = "", where: str = BOTH, over: str = RATE) -> str:
    """Return what a counter grows by each second, summed by ``by``."""
    clause = f" by ({by})" if by else ""
    return f"sum{clause} (rate({series}{{{where}}}{over}))"


def quantile(q: float, histogram: str, by: str, where: str = BOTH, over: str = RATE) -> str:
    """Return a quantile of a histogram, by ``by``."""
    return f"histogram_quantile({q}, {rate(f'{histogram}_bucket', f'le, {by}', where, over)})"


def spread(histogram: str, by: str, where: str = BOTH) -> list[Query]:
    """Return median, 95th and 99th percentile."""
    return [
        Query(quantile(q, histogram, by, where), f"{{{{{by}}}}} p{round(q * 100)}")
        for q in (0.5, 0.95, 0.99)
    ]


# Every API replica asks the queues, so their answers are the same ones: max, never sum.
DEPTH = f'max by (pool, state) (darkroom_queue_depth{{{POOL},pool!="webhooks"}})'
IN_FLIGHT = f"darkroom_jobs_in_flight{{{POOL}}}"
PRICE = f"darkroom_worker_price_usd_per_hour{{{POOL}}}"
IDLE_PRICE = f"{PRICE} * ({IN_FLIGHT} == bool 0)"
FAILED = f'{BOTH},status="Failed"'


def spent(price: str) -> str:
    """Return US dollars over the time shown: dollars an hour, looked at every minute."""
    return f"sum by (pool) (sum_over_time(({price})[$__range:1m])) / 60"


# Loads are rare: over a few minutes there often is none.
LOADING = quantile(0.95, "darkroom_model_load_seconds", "model", 'model=~"$model"', "[$__range]")


def jobs() -> Json:
    """Return the dashboard."""
    return dashboard(
        "darkroom-jobs",
        "Darkroom / jobs",
        "Requests and latency by model, the queues and how long jobs wait for a worker, what"
        " failed and why, and what the devices cost while they idle.",
        [
            Variable("pool", "darkroom_queue_depth", "pool"),
            Variable("model", "darkroom_jobs_admitted_total", "model"),
        ],
        [_requests(), _queue(), _outcome(), _time(), _cost(), _webhooks()],
    )


def _requests() -> Row:
    return Row(
        "Requests",
        [
            Panel(
                "Jobs admitted by model",
                "Accepted submits each second.",
                [Query(rate("darkroom_jobs_admitted_total", "model"), "{{model}}")],
                unit="reqps",
                stacked=True,
            ),
            Panel(
                "Latency by model",
                "From admission to the end of the jobs that succeeded.",
                spread("darkroom_job_seconds", "model", f'{BOTH},status="Succeeded"'),
                unit="s",
            ),
            Panel(
                "HTTP latency by route",
                "95th percentile of the API's answers; routes that wait for a job are as long.",
                [Query(quantile(0.95, "darkroom_http_request_seconds", "route", ""), "{{route}}")],
                unit="s",
            ),
            Panel(
                "Submits refused by reason",
                "Refusals each second, by error code.",
                [Query(rate("darkroom_jobs_refused_total", "code", ""), "{{code}}")],
                unit="reqps",
                stacked=True,
            ),
        ],
    )


def _queue() -> Row:
    return Row(
        "Queue and dispatch",
        [
            Panel(
                "Queue depth",
                "Messages by pool and state; `active` counts those that a worker holds too.",
                [Query(DEPTH, "{{pool}} {{state}}")],
            ),
            Panel(
                "Dispatch latency",
                "From admission to the claim by a worker, by pool: the wait for a device.",
                spread("darkroom_queue_seconds", "pool"),
                unit="s",
            ),
            Panel(
                "Jobs in flight and workers",
                "Jobs that run, jobs that workers hold to run next, and workers, idle ones too.",
                [
                    Query(f"sum by (pool) ({IN_FLIGHT})", "{{pool}} in flight"),
                    Query(f"sum by (pool) (darkroom_jobs_held{{{POOL}}})", "{{pool}} held"),
                    Query(f"count by (pool) ({PRICE})", "{{pool}} workers"),
                ],
            ),
            Panel(
                "Arrivals and completions",
                "The queue grows while the first is above the second.",
                [
                    Query(rate("darkroom_jobs_admitted_total", "pool"), "{{pool}} in"),
                    Query(rate("darkroom_jobs_finished_total", "pool"), "{{pool}} out"),
                ],
                unit="reqps",
            ),
            Panel(
                "Messages given back",
                "By what became of them and why: lost leases, evictions, out of memory.",
                [
                    Query(
                        rate("darkroom_deliveries_returned_total", "disposition, code", POOL),
                        "{{disposition}} {{code}}",
                    )
                ],
                unit="reqps",
            ),
            Panel(
                "Messages sent again by the sweeper",
                "Submits whose send was never confirmed. Not 0 for long: the queue was away.",
                [Query(rate("darkroom_jobs_resent_total", "pool", POOL), "{{pool}}")],
                unit="reqps",
            ),
        ],
    )


def _outcome() -> Row:
    finished = rate("darkroom_jobs_finished_total", "model")
    failed = rate("darkroom_jobs_finished_total", "model", FAILED)
    return Row(
        "Success and failure",
        [
            Panel(
                "Ended jobs by status",
                "Succeeded, Failed and Canceled each second.",
                [Query(rate("darkroom_jobs_finished_total", "status"), "{{status}}")],
                unit="reqps",
                stacked=True,
            ),
            Panel(
                "Failures by error category",
                "Failed jobs each second by error code.",
                [Query(rate("darkroom_jobs_finished_total", "code", FAILED), "{{code}}")],
                unit="reqps",
                stacked=True,
            ),
            Panel(
                "Failures by model",
                "Part of a model's jobs that failed.",
                [Query(f"({failed} or {finished} * 0) / {finished}", "{{model}}")],
                unit="percentunit",
                top=1,
            ),
            Panel(
                "Dead letters",
                "Messages set aside. Each is a job that failed: `darkroom dead-letters list`.",
                [
                    Query(
                        f'max by (pool) (darkroom_queue_depth{{{POOL},state="dead_lettered"}})',
                        "{{pool}}",
                    )
                ],
                thresholds=((1.0, "red"),),
            ),
        ],
    )


def _time() -> Row:
    return Row(
        "Where the time goes",
        [
            Panel(
                "Seconds of work each second",
                "Generating, loading and storing. Loading above a tenth: too many models a pool.",
                [
                    Query(rate("darkroom_device_seconds_total", "doing", POOL), "{{doing}}"),
                    Query(rate("darkroom_store_seconds_sum"), "store"),
                ],
                unit="s",
                stacked=True,
            ),
            Panel(
                "GPU time of a job by model",
                "95th percentile of the time inside the pipeline call.",
                [Query(quantile(0.95, "darkroom_gpu_seconds", "model"), "{{model}}")],
                unit="s",
            ),
            Panel(
                "Pictures in a call",
                "Mean of what one pipeline call makes. 1 under load: jobs differ too much to run"
                " together, or the pool's concurrency is 1.",
                [
                    Query(
                        f"{rate('darkroom_batch_pictures_sum', 'pool', POOL)}"
                        f" / {rate('darkroom_batch_pictures_count', 'pool', POOL)}",
                        "{{pool}}",
                    )
                ],
            ),
            Panel(
                "Weights held",
                "Bytes of models on the device, and parked in the host's memory.",
                [Query("max by (pod, tier) (darkroom_model_bytes)", "{{pod}} {{tier}}")],
                unit="bytes",
            ),
            Panel(
                "Models loaded and put away",
                "By where they came from or went: `host` is parked beside the device, `disk` costs"
                " a whole load.",
                [
                    Query(
                        rate("darkroom_model_loads_total", "source", 'model=~"$model"'),
                        "from {{source}}",
                    ),
                    Query(
                        rate("darkroom_model_evictions_total", "to", 'model=~"$model"'),
                        "to {{to}}",
                    ),
                ],
                unit="ops",
            ),
            Panel(
                "Model load time",
                "95th percentile over the time shown: part of a first request's wait.",
                [Query(LOADING, "{{model}}")],
                unit="s",
            ),
        ],
    )


def _cost() -> Row:
    return Row(
        "Cost",
        [
            Panel(
                "Spent on workers",
                "Price of the workers that ran, over the time shown, at the catalog's prices.",
                [Query(spent(PRICE), "{{pool}}", instant=True)],
                kind="stat",
                unit="currencyUSD",
                width=8,
                height=5,
            ),
            Panel(
                "Could be saved",
                "Price of the workers that held no job. Lower replicas.min, the cooldown or the"
                " slow scale-in to save it, at the price of more cold starts.",
                [Query(spent(IDLE_PRICE), "{{pool}}", instant=True)],
                kind="stat",
                unit="currencyUSD",
                thresholds=((1.0, "yellow"),),
                width=8,
                height=5,
            ),
            Panel(
                "Price of a job that succeeded",
                "What the workers cost each second, by what they delivered each second.",
                [
                    Query(
                        f"sum by (pool) ({PRICE}) / 3600 / "
                        + rate(
                            "darkroom_jobs_finished_total", "pool", f'{POOL},status="Succeeded"'
                        ),
                        "{{pool}}",
                        instant=True,
                    )
                ],
                kind="stat",
                unit="currencyUSD",
                width=8,
                height=5,
            ),
            Panel(
                "Cost by the hour",
                "What the pools cost now, and what of it is for workers that hold no job.",
                [
                    Query(f"sum by (pool) ({PRICE})", "{{pool}}"),
                    Query(f"sum by (pool) ({IDLE_PRICE})", "{{pool}} idle"),
                ],
                unit="currencyUSD",
            ),
            Panel(
                "Utilisation of paid workers",
                "Part of the workers that hold a job, and part of their time inside the pipeline.",
                [
                    Query(f"avg by (pool) ({IN_FLIGHT} > bool 0)", "{{pool}} holding a job"),
                    Query(
                        rate("darkroom_device_seconds_total", "pool", f'{POOL},doing="generate"')
                        + f" / count by (pool) ({PRICE})",
                        "{{pool}} generating",
                    ),
                ],
                unit="percentunit",
            ),
        ],
    )


def _webhooks() -> Row:
    return Row(
        "Webhooks",
        [
            Panel(
                "Deliveries by outcome",
                "Attempts each second by what they came to.",
                [Query(rate("darkroom_webhook_attempts_total", "outcome", ""), "{{outcome}}")],
                unit="reqps",
                stacked=True,
            ),
            Panel(
                "Events set aside",
                "After the last attempt, in the time shown.",
                [Query("sum(increase(darkroom_webhook_dead_lettered_total[$__range]))", "events")],
                thresholds=((1.0, "red"),),
            ),
        ],
    )
