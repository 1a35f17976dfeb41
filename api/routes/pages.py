"""The page for people, and the one that shows the API: static files, nothing from elsewhere."""

from pathlib import Path

from fastapi import APIRouter, FastAPI
from fastapi.responses import FileResponse
from starlette.responses import Response
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

from api.errors import RouteNotFound

router = APIRouter(include_in_schema=False)
FOLDER = Path(__file__).resolve().parent.parent / "ui"


@router.get("/")
async def index() -> FileResponse:
    """Serve the page."""
    return _page("index.html")


@router.get("/docs")
async def docs() -> FileResponse:
    """Serve the page that shows /openapi.json."""
    return _page("docs.html")


def mount(app: FastAPI) -> None:
    """Serve the pages' scripts and styles under /ui."""
    app.mount("/ui", _Files(directory=FOLDER, check_dir=False), name="ui")


class _Files(StaticFiles):
    """Files that a browser checks again each time, so that a new release shows at once."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        response = await super().get_response(path, scope)
        response.headers["cache-control"] = "no-cache"
        return response


def _page(name: str) -> FileResponse:
    file = FOLDER / name
    if not file.is_file():
        raise RouteNotFound("this installation has no pages")
    return FileResponse(file, media_type="text/html", headers={"cache-control": "no-cache"})
