"""What a model's family cannot do is refused when the job is submitted, by the field at fault."""

from typing import Any

import pytest

from api.resolving import Sides, resolve
from darkroom.catalog import Catalog
from darkroom.errors import InvalidInput
from darkroom.generation import GenerationRequest

FLUX: dict[str, Any] = {
    "name": "flux",
    "family": "flux",
    "source": "flux",
    "revision": "1",
    "kinds": ["text_to_image", "image_to_image"],
    "defaults": {"width": 1024, "height": 1024, "num_inference_steps": 28},
    "seconds_per_megapixel_step": 0.1,
    "licence": "x",
}
CATALOG = Catalog.model_validate(
    {
        "default_model": "flux",
        "models": [FLUX],
        "pools": [{"name": "one", "models": ["flux"], "max_gpu_seconds": 1000}],
    }
)


def asked(**fields: Any) -> GenerationRequest:
    return GenerationRequest.model_validate({"prompt": "a boat", **fields})


@pytest.mark.parametrize(
    ("fields", "target", "said"),
    [
        ({"width": 1000}, "width", "width must be a multiple of 16 for model flux"),
        ({"height": 264}, "height", "height must be a multiple of 16"),
        ({"scheduler": "DDIMScheduler"}, "scheduler", "FlowMatchEulerDiscreteScheduler"),
        ({"image": "x", "mask_image": "y"}, "mask_image", "cannot do inpainting"),
        ({"image": "x", "strength": 0.03}, "strength", "less than one step"),
        (
            {"image": "x", "strength": 0.4, "num_inference_steps": 2},
            "strength",
            "strength 0.4 of 2 steps is less than one step",
        ),
    ],
    ids=str,
)
def test_what_the_pipelines_would_refuse_later_is_refused_at_once(
    fields: dict[str, Any], target: str, said: str
) -> None:
    picture = Sides(512, 512) if "image" in fields else None
    with pytest.raises(InvalidInput, match=said) as refused:
        resolve(asked(**fields), CATALOG, picture)
    assert refused.value.target == target


def test_a_picture_off_the_familys_grid_is_fitted_to_it() -> None:
    generation = resolve(asked(image="x"), CATALOG, Sides(1000, 520))
    assert (generation.width, generation.height) == (992, 512)


def test_a_strength_of_exactly_one_step_is_admitted() -> None:
    generation = resolve(
        asked(image="x", strength=0.5, num_inference_steps=2), CATALOG, Sides(64, 64)
    )
    assert generation.strength == 0.5
