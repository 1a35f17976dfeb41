"""``python -m bench.api_bare PORT``: the least that a submit can be, on FastAPI.

The same body, read and checked by the same code, and an id for an answer. Nothing is kept.
"""

import sys
import uuid
from types import SimpleNamespace
from typing import cast

import uvicorn
from fastapi import FastAPI, Request

from api.bodies import read_generation
from api.settings import ApiSettings
from api.state import ApiState
from bench.api_client import SUBMITS
from darkroom.generation import GenerationRequest

_ONLY_LIMITS = cast(ApiState, SimpleNamespace(settings=ApiSettings.model_validate({})))


async def checked_body(request: Request) -> GenerationRequest:
    """Read and check a submit's body as the API does."""
    return await read_generation(request, _ONLY_LIMITS)


def run(app: FastAPI, port: int) -> None:
    """Serve with uvicorn's own choice of event loop and parser, and without an access log."""
    uvicorn.run(app, port=port, log_config=None, access_log=False, server_header=False)


def main() -> None:
    """Serve until a signal."""
    app = FastAPI()

    @app.post(SUBMITS, status_code=202)
    async def submit(request: Request) -> dict[str, str]:
        await checked_body(request)
        return {"id": uuid.uuid4().hex}

    run(app, int(sys.argv[1]))


if __name__ == "__main__":
    main()
