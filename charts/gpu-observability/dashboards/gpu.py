"""The dashboard of devices: how busy, how full, how warm, what failed."""

from panels import Json, Panel, Query, Row, Variable, dashboard

ONLY = '{modelName=~"$device"}'
LEGEND = "{{node}} gpu {{gpu}} {{GPU_I_PROFILE}}{{GPU_I_ID}}"


def by_node(expr: str) -> str:
    """Return ``expr`` with a label `node`: older exporters say `Hostname`, newer `hostname`."""
    for label in ("Hostname", "hostname"):
        expr = f'label_replace({expr}, "node", "$1", "{label}", "(.+)")'
    return expr


USED, FREE, RESERVED = (f"DCGM_FI_DEV_FB_{kind}{ONLY}" for kind in ("USED", "FREE", "RESERVED"))
BUSY = f"(DCGM_FI_PROF_GR_ENGINE_ACTIVE{ONLY} or DCGM_FI_DEV_GPU_UTIL{ONLY} / 100)"
PRESSURE = f"{USED} / ({USED} + {FREE} + {RESERVED})"
WORKERS = 'label_replace(darkroom_worker_info{gpu!=""}, "UUID", "$1", "gpu", "(.+)")'
OF_POOLS = f"on (UUID) group_left (pool) max by (UUID, pool) ({WORKERS})"

WARM = ((80.0, "yellow"), (88.0, "red"))
FULL = ((0.9, "yellow"), (0.97, "red"))


def gpu() -> Json:
    """Return the dashboard."""
    return dashboard(
        "darkroom-gpu",
        "Darkroom / GPUs",
        "Utilisation, memory pressure, temperature, power, tensor activity and XID errors of every"
        " GPU or MIG instance.",
        [Variable("device", "DCGM_FI_DEV_FB_USED", "modelName")],
        [_now(), _work(), _memory(), _hardware()],
    )


def _now() -> Row:
    stat = {"kind": "stat", "width": 4, "height": 4}
    return Row(
        "Now",
        [
            Panel(
                "Devices",
                "GPUs, or MIG instances where MIG is on, that an exporter sees.",
                [Query(f"count({USED})", instant=True)],
                **stat,
            ),
            Panel(
                "Utilisation",
                "Mean over all devices: the part of time in which the engine was active.",
                [Query(f"avg({BUSY})", instant=True)],
                unit="percentunit",
                **stat,
            ),
            Panel(
                "Fullest memory",
                "Used / (used + free + reserved) of the fullest device.",
                [Query(f"max({PRESSURE})", instant=True)],
                unit="percentunit",
                thresholds=FULL,
                **stat,
            ),
            Panel(
                "Hottest",
                "Temperature of the hottest device.",
                [Query(f"max(DCGM_FI_DEV_GPU_TEMP{ONLY})", instant=True)],
                unit="celsius",
                thresholds=WARM,
                **stat,
            ),
            Panel(
                "Power of all",
                "What all devices draw together.",
                [Query(f"sum(DCGM_FI_DEV_POWER_USAGE{ONLY})", instant=True)],
                unit="watt",
                **stat,
            ),
            Panel(
                "Devices with an XID error",
                "Devices whose last XID is not 0. What each number means: NVIDIA's XID catalogue.",
                [
                    Query(
                        f"count(DCGM_FI_DEV_XID_ERRORS{ONLY} > 0)"
                        f" or 0 * count(DCGM_FI_DEV_XID_ERRORS{ONLY})",
                        instant=True,
                    )
                ],
                thresholds=((1.0, "red"),),
                **stat,
            ),
        ],
    )


def _work() -> Row:
    return Row(
        "Work",
        [
            Panel(
                "Utilisation by device",
                "Part of time in which the engine was active; MIG instances have a line each.",
                [Query(by_node(BUSY), LEGEND)],
                unit="percentunit",
                top=1,
            ),
            Panel(
                "Utilisation by pool",
                "Of the GPUs that a pool's workers hold, joined by the GPU's UUID. Low while jobs"
                " wait: the model loads, or pictures are stored.",
                [Query(f"avg by (pool) ({BUSY} * {OF_POOLS})", "{{pool}}")],
                unit="percentunit",
                top=1,
            ),
            Panel(
                "Tensor activity",
                "Cycles in which the tensor cores worked. Low at high utilisation: small batches"
                " or a float32 model.",
                [Query(by_node(f"DCGM_FI_PROF_PIPE_TENSOR_ACTIVE{ONLY}"), LEGEND)],
                unit="percentunit",
                top=1,
            ),
            Panel(
                "Memory traffic",
                "Cycles in which device memory was read or written.",
                [Query(by_node(f"DCGM_FI_PROF_DRAM_ACTIVE{ONLY}"), LEGEND)],
                unit="percentunit",
                top=1,
            ),
        ],
    )


def _memory() -> Row:
    return Row(
        "Memory",
        [
            Panel(
                "Memory pressure",
                "Used / (used + free + reserved). Near 1 the next batch ends in OutOfMemory.",
                [Query(by_node(f"({PRESSURE})"), LEGEND)],
                unit="percentunit",
                top=1,
                thresholds=FULL,
            ),
            Panel(
                "Memory by pod",
                "Who holds device memory; a pod that is not a worker should not be here.",
                [Query('sum by (pod) (DCGM_FI_DEV_FB_USED{modelName=~"$device",pod!=""})')],
                unit="decmbytes",
                stacked=True,
            ),
        ],
    )


def _hardware() -> Row:
    return Row(
        "Hardware",
        [
            Panel(
                "Temperature",
                "Above 85 °C most devices slow down.",
                [Query(by_node(f"DCGM_FI_DEV_GPU_TEMP{ONLY}"), LEGEND)],
                unit="celsius",
                thresholds=WARM,
            ),
            Panel(
                "Power",
                "Draw of each device.",
                [Query(by_node(f"DCGM_FI_DEV_POWER_USAGE{ONLY}"), LEGEND)],
                unit="watt",
            ),
            Panel(
                "SM clock",
                "A clock that falls under load: too warm, or at its power limit.",
                [Query(by_node(f"DCGM_FI_DEV_SM_CLOCK{ONLY}"), LEGEND)],
                unit="rotmhz",
            ),
            Panel(
                "XID errors",
                "The number of each device's last XID error; 0 is none. 48, 74, 79, 95, 119 and 120"
                " need the GPU reset or the node replaced.",
                [Query(by_node(f"DCGM_FI_DEV_XID_ERRORS{ONLY}"), LEGEND)],
            ),
        ],
    )
