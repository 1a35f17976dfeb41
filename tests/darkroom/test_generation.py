"""Every limit of a request, at the edge and beyond it."""

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from darkroom.generation import (
    MAX_DEADLINE_SECONDS,
    MAX_GUIDANCE,
    MAX_IMAGE_BASE64_CHARACTERS,
    MAX_IMAGES,
    MAX_LORA_WEIGHT,
    MAX_LORAS,
    MAX_PROMPT_CHARACTERS,
    MAX_SEED,
    MAX_SIDE_PIXELS,
    MAX_STEPS,
    MAX_TAG_CHARACTERS,
    MAX_TAGS,
    MIN_SIDE_PIXELS,
    GenerationRequest,
    InputImage,
)
from tests.samples import make_generation

LONG_TAG = "t" * MAX_TAG_CHARACTERS


def ask(**fields: Any) -> GenerationRequest:
    return GenerationRequest.model_validate({"prompt": "a hill", **fields})


def loras(count: int, weight: float = 1.0) -> list[dict[str, Any]]:
    return [{"name": f"ink-{index}", "weight": weight} for index in range(count)]


WITHIN = [
    ("prompt", "p"),
    ("prompt", "p" * MAX_PROMPT_CHARACTERS),
    ("prompt", "two\nlines\tand a tab"),
    ("prompt", "☕ café 漢字"),
    ("negative_prompt", ""),
    ("negative_prompt", "n" * MAX_PROMPT_CHARACTERS),
    ("width", MIN_SIDE_PIXELS),
    ("width", MAX_SIDE_PIXELS),
    ("height", MIN_SIDE_PIXELS),
    ("height", MAX_SIDE_PIXELS),
    ("num_inference_steps", 1),
    ("num_inference_steps", MAX_STEPS),
    ("guidance_scale", 0.0),
    ("guidance_scale", 7),
    ("guidance_scale", MAX_GUIDANCE),
    ("num_images", 1),
    ("num_images", MAX_IMAGES),
    ("seed", 0),
    ("seed", MAX_SEED),
    ("scheduler", "DDIMScheduler"),
    ("model", "a"),
    ("model", "m" * 64),
    ("image", "A" * MAX_IMAGE_BASE64_CHARACTERS),
    ("strength", 0.001),
    ("strength", 1.0),
    ("loras", loras(MAX_LORAS)),
    ("loras", loras(1, -MAX_LORA_WEIGHT)),
    ("loras", loras(1, MAX_LORA_WEIGHT)),
    ("deadline_seconds", 1),
    ("deadline_seconds", MAX_DEADLINE_SECONDS),
    ("tags", {str(index): "v" for index in range(MAX_TAGS)}),
    ("tags", {LONG_TAG: LONG_TAG}),
]

BEYOND = [
    ("prompt", ""),
    ("prompt", " \n\t "),
    ("prompt", "p" * (MAX_PROMPT_CHARACTERS + 1)),
    ("prompt", "nul \x00"),
    ("prompt", "escape \x1b[31m"),
    ("prompt", "half a pair \ud800"),
    ("prompt", 7),
    ("prompt", None),
    ("negative_prompt", "n" * (MAX_PROMPT_CHARACTERS + 1)),
    ("negative_prompt", "\x7f"),
    ("width", MIN_SIDE_PIXELS - 8),
    ("width", MAX_SIDE_PIXELS + 8),
    ("width", 513),
    ("width", 512.0),
    ("width", "512"),
    ("width", True),
    ("height", 0),
    ("height", -512),
    ("height", 10**30),
    ("num_inference_steps", 0),
    ("num_inference_steps", MAX_STEPS + 1),
    ("guidance_scale", -0.001),
    ("guidance_scale", MAX_GUIDANCE + 0.001),
    ("guidance_scale", math.nan),
    ("guidance_scale", math.inf),
    ("guidance_scale", "7.5"),
    ("num_images", 0),
    ("num_images", MAX_IMAGES + 1),
    ("num_images", None),
    ("seed", -1),
    ("seed", MAX_SEED + 1),
    ("seed", 1.5),
    ("scheduler", "os.system"),
    ("scheduler", "__class__"),
    ("scheduler", ""),
    ("scheduler", "DDIMScheduler\n"),
    ("model", "../secrets"),
    ("model", "Upper"),
    ("model", ""),
    ("model", "m" * 65),
    ("model", "demo\n"),
    ("image", "A" * (MAX_IMAGE_BASE64_CHARACTERS + 1)),
    ("mask_image", "A" * (MAX_IMAGE_BASE64_CHARACTERS + 1)),
    ("strength", 0.0),
    ("strength", 1.001),
    ("strength", math.nan),
    ("loras", loras(MAX_LORAS + 1)),
    ("loras", loras(1, MAX_LORA_WEIGHT + 0.001)),
    ("loras", loras(1, -MAX_LORA_WEIGHT - 0.001)),
    ("loras", loras(1, math.nan)),
    ("loras", [{"weight": 1.0}]),
    ("loras", [{"name": "ink", "path": "/etc/passwd"}]),
    ("deadline_seconds", 0),
    ("deadline_seconds", MAX_DEADLINE_SECONDS + 1),
    ("tags", {str(index): "v" for index in range(MAX_TAGS + 1)}),
    ("tags", {"t" * (MAX_TAG_CHARACTERS + 1): "v"}),
    ("tags", {"t": "v" * (MAX_TAG_CHARACTERS + 1)}),
    ("tags", {"": "v"}),
    ("tags", {"t": ""}),
    ("tags", {"t": 1}),
    ("tags", {"t": "\x00"}),
    ("webhook", "https://example.com"),
    ("Prompt", "case matters"),
]


def shown(value: object) -> str:
    return ascii(value)[:24]


@pytest.mark.parametrize(("field", "value"), WITHIN, ids=shown)
def test_the_edge_of_each_limit_is_allowed(field: str, value: Any) -> None:
    stored = getattr(ask(**{field: value}), field)
    assert stored == value or field == "loras"


@pytest.mark.parametrize(("field", "value"), BEYOND, ids=shown)
def test_one_step_beyond_is_refused_by_name(field: str, value: Any) -> None:
    with pytest.raises(ValidationError) as refused:
        ask(**{field: value})
    assert [error["loc"][0] for error in refused.value.errors()] == [field]


def test_a_prompt_is_required() -> None:
    with pytest.raises(ValidationError) as refused:
        GenerationRequest.model_validate({})
    assert refused.value.errors()[0]["loc"] == ("prompt",)


def test_what_is_left_out_stays_open_for_the_model_to_fill() -> None:
    request = ask()
    filled = request.model_dump(exclude_unset=True)
    assert filled == {"prompt": "a hill"}
    assert (request.width, request.seed, request.num_images) == (None, None, 1)


@given(st.integers(0, MAX_SEED), st.integers(1, MAX_IMAGES))
def test_each_picture_has_a_seed_of_its_own_that_can_be_asked_for(seed: int, count: int) -> None:
    seeds = make_generation(seed=seed, num_images=count).seeds
    assert len(set(seeds)) == count
    for index, each in enumerate(seeds):
        assert 0 <= each <= MAX_SEED
        assert make_generation(seed=each).seeds == (each,)
        assert each == (seed + index) % 2**32


def test_the_pictures_given_tell_the_kind() -> None:
    picture = InputImage(sha256="a" * 64, width=64, height=64)
    assert make_generation().kind == "text_to_image"
    assert make_generation(image=picture).kind == "image_to_image"
    assert make_generation(image=picture, mask_image=picture).kind == "inpainting"


def test_what_may_be_logged_holds_no_content() -> None:
    picture = InputImage(sha256="feed" * 16, width=64, height=64)
    generation = make_generation(
        prompt="secret hill", negative_prompt="secret sea", image=picture, mask_image=picture
    )
    logged = generation.without_content()
    assert logged["width"] == 512
    assert "secret" not in str(logged)
    assert "feed" not in str(logged)
