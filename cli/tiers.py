"""`darkroom api`, `darkroom worker`, `darkroom webhooks`: become one process of a tier."""

import os
import signal
import sys
import threading

from cli.problems import needing

WATCH_PARENT = "--watch-parent"
GRACE_SECONDS = 60.0  # an orphan that cannot stop by itself in this time is ended


def serve_api() -> int:
    """Run the API until it is told to stop; return the exit status."""
    with needing("api", "the API"):
        from api.wiring import serve
    return serve()


def serve_worker(devices: str | None = None) -> int:
    """Run one worker, or one on each of ``devices``, until told to stop; return the exit status."""
    with needing("worker", "the worker"):
        from worker.wiring import serve
    return serve(devices)


def serve_webhooks() -> int:
    """Send webhooks until told to stop; return the exit status."""
    with needing("api", "the sender of webhooks"):
        from api.webhooks.wiring import serve
    return serve()


TIERS = {"api": serve_api, "worker": serve_worker, "webhooks": serve_webhooks}


def follow_parent() -> None:
    """Stop this process when the one that started it is gone, however it went.

    The parent holds the other end of our standard input and never writes: the end of the stream is
    its death, kill -9 included. Works wherever there are pipes, and without a race at the start.
    """
    threading.Thread(target=_stop_at_end_of_input, name="follow-parent", daemon=True).start()


def _stop_at_end_of_input() -> None:
    while os.read(sys.stdin.fileno(), 1):
        pass
    # Nobody reads our output any more: a broken pipe must not disturb the orderly stop.
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.dup2(nowhere, sys.stderr.fileno())
    threading.Timer(GRACE_SECONDS, os._exit, args=(1,)).start()
    os.kill(os.getpid(), signal.SIGTERM)
