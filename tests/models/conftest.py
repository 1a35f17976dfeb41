"""The committed demo pipeline, loaded once."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

PIPELINE = Path(__file__).parents[2] / "models" / "demo" / "pipeline"
Generate = Callable[..., list[Any]]


@pytest.fixture(scope="session")
def pipeline_folder() -> Path:
    return PIPELINE


@pytest.fixture(scope="session")
def pipe(pipeline_folder: Path) -> Any:
    torch = pytest.importorskip("torch", reason="the worker extra is not installed")
    diffusers = pytest.importorskip("diffusers", reason="the worker extra is not installed")
    torch.set_num_threads(1)
    loaded = diffusers.DiffusionPipeline.from_pretrained(
        pipeline_folder, dtype=torch.float32, local_files_only=True
    )
    loaded.set_progress_bar_config(disable=True)
    return loaded


@pytest.fixture(scope="session")
def generate(pipe: Any) -> Generate:
    """``generate(prompts, seeds, **options)``: pictures, each with its own seed."""
    import torch

    def run(prompts: Sequence[str], seeds: Sequence[int], **options: Any) -> list[Any]:
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        settings = {"num_inference_steps": 10, "guidance_scale": 2.0} | options
        images: list[Any] = pipe(list(prompts), generator=generators, **settings).images
        return images

    return run
