"""``python -m bench.api_celery PORT SOCKET``: a submit that becomes a Celery task on Redis.

Broker and result backend as in Celery's first steps. ``delay`` is called on the event loop: a
thread for each call makes it slower.
"""

import sys

from celery import Celery  # type: ignore[import-not-found]
from fastapi import FastAPI, Request

from bench.api_bare import checked_body, run
from bench.api_client import SUBMITS


def main() -> None:
    """Serve until a signal."""
    port, path = int(sys.argv[1]), sys.argv[2]
    tasks = Celery("bench", broker=f"redis+socket://{path}", backend=f"redis+socket://{path}")

    @tasks.task(name="generate")  # type: ignore[untyped-decorator]
    def generate(asked: dict[str, object]) -> None:
        """Never run: nobody consumes."""

    app = FastAPI()

    @app.post(SUBMITS, status_code=202)
    async def submit(request: Request) -> dict[str, str]:
        asked = await checked_body(request)
        return {"id": generate.delay(asked.model_dump(mode="json", exclude_none=True)).id}

    run(app, port)


if __name__ == "__main__":
    main()
