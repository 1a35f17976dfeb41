"""Tiny pipelines with random weights: every kind and parameter, no picture worth looking at."""

from collections.abc import Callable
from pathlib import Path

import pytest

from darkroom.catalog import Model
from tests.worker.engines.tiny import save_tiny_stable_diffusion
from worker.engines.diffusers import DiffusersEngine


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    """Two busy threads on two busy cores take ten times as long as one."""
    import torch

    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Stable Diffusion folder of some 100,000 random weights."""
    return save_tiny_stable_diffusion(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="session")
def tiny_model() -> Model:
    """The catalog entry of `tiny_folder`."""
    return make_model()


def make_model(**fields: object) -> Model:
    defaults = {
        "name": "tiny",
        "source": "tiny",
        "revision": "1",
        "kinds": ("text_to_image", "image_to_image", "inpainting"),
        "dtype": "float32",
        "scheduler": "DDIMScheduler",
        "seconds_per_megapixel_step": 0.1,
        "licence": "MIT",
    }
    return Model.model_validate({**defaults, **fields})


def no_loras(source: object) -> Path:
    raise AssertionError("no LoRA was asked for")


@pytest.fixture(scope="session")
def engine(tiny_folder: Path, tiny_model: Model) -> DiffusersEngine:
    """An engine on the CPU with the tiny pipeline loaded."""
    loaded = DiffusersEngine("cpu", no_loras)
    loaded.load(tiny_model, tiny_folder)
    return loaded


@pytest.fixture
def model_with() -> Callable[..., Model]:
    """Make a catalog entry with other fields."""
    return make_model
