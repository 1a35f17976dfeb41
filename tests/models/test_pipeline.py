"""The committed pipeline is an ordinary diffusers folder that draws what it is asked for."""

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models.demo.checker import check, describe, ground_of, has_tree, house_in, time_of
from models.demo.world import Figure, Pair
from tests.models.conftest import Generate

PROMPT = "a blue square on a yellow background"
MAX_FOLDER_BYTES = 15 * 1024 * 1024


def pixels(image: Any) -> np.ndarray:
    return np.asarray(image.convert("RGB")).astype(int)


def test_the_folder_is_small_and_names_no_machine(pipeline_folder: Path) -> None:
    files = [path for path in pipeline_folder.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= MAX_FOLDER_BYTES
    for path in files:
        if path.suffix == ".json":
            assert "_name_or_path" not in json.loads(path.read_text()), path.name


def test_it_loads_as_a_stable_diffusion_pipeline_without_a_safety_checker(pipe: Any) -> None:
    assert type(pipe).__name__ == "StableDiffusionPipeline"
    assert pipe.safety_checker is None
    assert pipe.unet.config.sample_size * pipe.vae_scale_factor == 128


def test_the_same_seed_gives_the_same_pixels_and_another_seed_does_not(generate: Generate) -> None:
    first, again, other = (generate([PROMPT], [seed])[0] for seed in (3, 3, 4))
    assert np.array_equal(pixels(first), pixels(again))
    assert np.abs(pixels(first) - pixels(other)).max() > 30


def test_a_batch_draws_what_single_calls_draw(generate: Generate) -> None:
    prompts = [PROMPT, "a red house and a tree in a green field by day", "the sea at night"]
    together = generate(prompts, [1, 2, 3])
    for prompt, seed, image in zip(prompts, [1, 2, 3], together, strict=True):
        alone = generate([prompt], [seed])[0]
        assert np.abs(pixels(image) - pixels(alone)).max() <= 2


def test_guidance_and_negative_prompt_change_the_picture(generate: Generate) -> None:
    plain = pixels(generate([PROMPT], [5])[0])
    free = pixels(generate([PROMPT], [5], guidance_scale=1.0)[0])
    against = pixels(generate([PROMPT], [5], negative_prompt=["a blue star"])[0])
    assert np.abs(plain - free).max() > 10
    assert np.abs(plain - against).max() > 10


@pytest.mark.parametrize("steps", [4, 20, 30])
def test_any_number_of_steps_keeps_the_colours(generate: Generate, steps: int) -> None:
    found = describe(generate([PROMPT], [6], num_inference_steps=steps)[0])
    assert found.background == "yellow"
    assert found.figures[0].color == "blue"


@pytest.mark.parametrize(("width", "height"), [(64, 64), (160, 96), (256, 256)])
def test_sizes_that_are_multiples_of_eight_work(
    generate: Generate, width: int, height: int
) -> None:
    image = generate([PROMPT], [7], num_inference_steps=4, width=width, height=height)[0]
    assert image.size == (width, height)


def test_prompts_it_never_saw_come_out_right(generate: Generate) -> None:
    wanted = {
        "a red circle above a green star on a white background": Pair(
            Figure("circle", "red"), Figure("star", "green"), "above", "white"
        ),
        "a yellow heart to the left of a blue triangle on a black background": Pair(
            Figure("heart", "yellow"), Figure("triangle", "blue"), "left", "black"
        ),
    }
    images = generate(list(wanted), [8, 8], num_inference_steps=20)
    for spec, image in zip(wanted.values(), images, strict=True):
        answers = check(spec, image)
        assert answers["background"]
        assert answers["count"]
        assert answers["color"]
        assert answers["relation_with_shapes"]


def test_a_landscape_shows_its_time_ground_house_and_tree(generate: Generate) -> None:
    prompt = "a red house and a tree in a green field by day"
    array = pixels(generate([prompt], [9], num_inference_steps=20)[0]).astype(float)
    assert time_of(array) == "day"
    assert ground_of(array, "day") == "field"
    assert house_in(array, "day") == "red"
    assert has_tree(array, "day")


def test_unknown_words_in_front_leave_the_colours_alone(generate: Generate) -> None:
    prompts = [f"{words} {PROMPT}" for words in ("job 4711", "quizzical zebra", "load-test x9:")]
    for image in generate(prompts, [10, 11, 12]):
        found = describe(image)
        assert found.background == "yellow"
        assert found.figures[0].color == "blue"


def test_an_image_can_be_the_start_and_a_mask_can_bound_the_change(pipe: Any) -> None:
    diffusers = pytest.importorskip("diffusers")
    torch = pytest.importorskip("torch")
    from PIL import Image, ImageDraw

    start = Image.new("RGB", (128, 128), "white")
    ImageDraw.Draw(start).rectangle((32, 32, 96, 96), fill=(218, 34, 40))
    mask = Image.new("L", (128, 128), 0)
    ImageDraw.Draw(mask).rectangle((0, 0, 128, 64), fill=255)
    common = {"num_inference_steps": 10, "guidance_scale": 2.0}
    prompt = "a blue square on a white background"

    redraw = diffusers.StableDiffusionImg2ImgPipeline(
        **pipe.components, requires_safety_checker=False
    )
    redraw.set_progress_bar_config(disable=True)
    generator = torch.Generator().manual_seed(1)
    changed = redraw(prompt, image=start, strength=0.9, generator=generator, **common).images[0]
    assert describe(changed).figures[0].color == "blue"

    # The stock pipeline knows the way that suits us by a UNet of 4 channels alone; ours has 16.
    unet = copy.copy(pipe.unet)
    unet._internal_dict = diffusers.configuration_utils.FrozenDict(
        {**pipe.unet.config, "in_channels": 4}
    )
    inpaint = diffusers.StableDiffusionInpaintPipeline(
        **(pipe.components | {"unet": unet}), requires_safety_checker=False
    )
    inpaint.set_progress_bar_config(disable=True)
    generator = torch.Generator().manual_seed(2)
    filled = inpaint(
        prompt,
        image=start,
        mask_image=mask,
        height=128,
        width=128,
        generator=generator,
        **common,
    ).images[0]
    change = np.abs(pixels(filled) - pixels(start)).mean(-1)
    assert change[72:].mean() < 6
    assert change[:56].mean() > 2 * change[72:].mean()
