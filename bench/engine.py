"""What the engine adds to a pipeline call, what a preview costs, and which PNG settings pay.

    python -m bench.engine [--calls 10] [--catalog FILE]

The demo model's picture is made by the engine and by the bare pipeline on the same components,
alternating, in processor time; what the engine does before a call (scheduler, arguments, adapters)
is timed by itself as well. Then a preview beside a step. Then PNG files of its pictures, of a
photograph-like one and of noise, by level and by strategy. Prints tables and, as its last line, one
JSON object.
"""

import argparse
import io
import json
import statistics
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from darkroom.catalog import Model, load_catalog
from darkroom.generation import Generation
from darkroom.settings import DEFAULT_CATALOG
from worker.engines.base import GenerationTask, Preview
from worker.engines.diffusers import DiffusersEngine
from worker.engines.diffusers_arguments import arguments
from worker.engines.diffusers_models import HeldModel

PROMPTS = ("a red square", "a green field at night with a house", "a blue star above a circle")
PNG_SETTINGS: Mapping[str, Mapping[str, int]] = {
    **{f"level {level}": {"compress_level": level} for level in (1, 4, 6, 9)},
    "runs": {"compress_type": zlib.Z_RLE},
    "huffman": {"compress_type": zlib.Z_HUFFMAN_ONLY},
}


def milliseconds(call: Callable[[], object], times: int) -> list[float]:
    """Return the processor time of each of so many calls."""
    took = []
    for _ in range(times):
        started = time.process_time()
        call()
        took.append((time.process_time() - started) * 1e3)
    return took


def ask(model: Model, prompt: str = PROMPTS[0]) -> Generation:
    """Ask as the catalog's defaults do."""
    return Generation(
        model=model.name,
        prompt=prompt,
        negative_prompt="",
        **model.defaults.model_dump(),
        num_images=1,
        seed=1,
        scheduler=model.scheduler,
    )


def call_cost(engine: DiffusersEngine, model: Model, folder: Path, calls: int) -> dict[str, float]:
    """Compare the engine's call with the pipeline's own; alternate, so that both share a mood."""
    task = GenerationTask(ask(model))
    bare = HeldModel(model, folder, torch.device("cpu"), lambda source: folder)
    pipeline = bare.prepared("text_to_image", model.scheduler, ())

    def raw() -> None:
        with torch.inference_mode():
            pipeline(**arguments(pipeline, [task]))

    engine_ms, raw_ms = [], []
    for _ in range(calls):
        engine_ms += milliseconds(lambda: engine.generate([task], lambda *_: None), 1)
        raw_ms += milliseconds(raw, 1)
    before = milliseconds(lambda: bare.prepared("text_to_image", model.scheduler, ()), 50)
    before += milliseconds(lambda: arguments(pipeline, [task]), 50)
    engine_own = statistics.median(before[:50]) + statistics.median(before[50:])
    return {
        "engine_ms": statistics.median(engine_ms),
        "raw_ms": statistics.median(raw_ms),
        "ratio": statistics.median(engine_ms) / statistics.median(raw_ms),
        "own_ms": engine_own,
        "own_share": engine_own / statistics.median(raw_ms),
    }


def preview_cost(engine: DiffusersEngine, model: Model) -> dict[str, float]:
    """Time the previews of one call, and the steps between them."""
    previews: list[float] = []

    def look(step: int, total: int, preview: Preview) -> None:
        previews.extend(milliseconds(preview, 1))

    whole = milliseconds(lambda: engine.generate([GenerationTask(ask(model))], look), 1)[0]
    steps = model.defaults.num_inference_steps
    return {
        "preview_ms": statistics.median(previews),
        "step_ms": (whole - sum(previews)) / steps,
    }


def photograph(side: int) -> Image.Image:
    """Return a picture whose frequencies fall off as a photograph's do (Field 1987: 1/f)."""
    noise = np.random.default_rng(0)
    rows = np.fft.fftfreq(side)
    fall = np.hypot(rows[:, None], rows[None, :])
    fall[0, 0] = 1
    grey = noise.standard_normal((side, side))
    waves = [
        np.fft.ifft2(np.fft.fft2(0.8 * grey + 0.2 * noise.standard_normal(grey.shape)) / fall).real
        for _ in range(3)
    ]
    light = np.stack(waves, axis=-1)
    light = (light - light.mean()) / light.std() * 50 + 128
    return Image.fromarray(np.clip(light, 0, 255).astype(np.uint8))


def png_cost(pictures: Sequence[Image.Image], times: int) -> dict[str, dict[str, float]]:
    """Return milliseconds and KiB of one picture for each of the settings."""
    found = {}
    for name, settings in PNG_SETTINGS.items():

        def encode(settings: Mapping[str, int] = settings) -> int:
            files = [io.BytesIO() for _ in pictures]
            for file, picture in zip(files, pictures, strict=True):
                picture.save(file, "PNG", **settings)
            return sum(len(file.getvalue()) for file in files)

        took = statistics.median(milliseconds(encode, times))
        found[name] = {"ms": took / len(pictures), "kib": encode() / len(pictures) / 1024}
    return found


def main() -> None:
    """Measure and print."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--calls", type=int, default=10)
    options.add_argument("--catalog", type=Path, default=DEFAULT_CATALOG)
    given = options.parse_args()
    torch.set_num_threads(1)
    catalog = load_catalog(given.catalog)
    model = catalog.model(catalog.default_model)
    folder = catalog.folder / model.source
    engine = DiffusersEngine("cpu", lambda source: folder)
    engine.load(model, folder)
    tasks = [GenerationTask(ask(model, prompt)) for prompt in PROMPTS]
    drawn = [picture for made in engine.generate(tasks, lambda *_: None) for picture in made]
    noise = np.random.default_rng(1).integers(0, 256, (1024, 1024, 3), dtype=np.uint8)
    found: dict[str, Any] = {
        "call": call_cost(engine, model, folder, given.calls),
        "preview": preview_cost(engine, model),
        "png": {
            "model": png_cost(drawn, 20),
            "photograph": png_cost([photograph(1024)], 3),
            "noise": png_cost([Image.fromarray(noise)], 3),
        },
    }
    for name, value in {**found["call"], **found["preview"]}.items():
        print(f"{name:12} {value:10.3f}")
    for kind, settings in found["png"].items():
        for name, cost in settings.items():
            print(f"{kind:12} {name:10} {cost['ms']:8.2f} ms {cost['kib']:9.1f} KiB")
    print(json.dumps(found))


if __name__ == "__main__":
    main()
