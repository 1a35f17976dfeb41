"""One process of the chaos run: the real API or worker, with stores that fail by seed.

    python -m bench.chaos_node api|worker SEED RATE LEDGER

Everything else comes from the environment, as in production.
"""

import importlib
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import darkroom.wiring
from bench.faults import Faults, Faulty
from darkroom.wiring import Backends


def main() -> int:
    """Run the tier until it is stopped or killed."""
    tier, seed, rate, ledger = sys.argv[1:5]
    faults = Faults(int(seed), float(rate), Path(ledger))
    real = darkroom.wiring.open_backends

    def open_faulty(*args: Any, **named: Any) -> Backends:
        backends: Any = real(*args, **named)
        return replace(
            backends,
            jobs=Faulty(backends.jobs, faults),
            images=Faulty(backends.images, faults),
        )

    wiring: Any = importlib.import_module(f"{tier}.wiring")
    wiring.open_backends = open_faulty  # the one seam: what the tier opens
    return wiring.serve()


if __name__ == "__main__":
    sys.exit(main())
