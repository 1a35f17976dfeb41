"""What may be asked for."""

from fastapi import APIRouter

from api.dependencies import Reader, State
from api.documentation import refusals
from api.representations import ModelList, model_list

router = APIRouter(tags=["models"])


@router.get("/v1/models", summary="List the models", responses=refusals())
async def get_models(_: Reader, state: State) -> ModelList:
    """Return the catalog's models with their defaults and limits."""
    return model_list(state.catalog)
