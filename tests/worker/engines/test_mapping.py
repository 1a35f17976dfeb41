"""Weights that need no cast are mapped from their files, not copied: the page cache shares them."""

from pathlib import Path

import torch

from darkroom.catalog import Model
from worker.engines.diffusers_pipelines import load_pipeline


def mapped() -> set[str]:
    """The files that this process has mapped."""
    lines = Path("/proc/self/maps").read_text().splitlines()
    return {line.split()[-1] for line in lines}


def test_a_pipelines_weights_are_mapped(tiny_folder: Path, tiny_model: Model) -> None:
    pipeline = load_pipeline(tiny_model, tiny_folder, torch.device("cpu"))
    files = {str(file) for file in tiny_folder.rglob("*.safetensors")}
    assert len(files) >= 3
    assert files <= mapped()
    assert pipeline is not None  # it holds the mappings
