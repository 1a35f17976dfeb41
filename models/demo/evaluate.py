"""Does the picture show what was asked for? Accuracy on held-out prompts.

python -m models.demo.evaluate               the committed pipeline -> evaluation.json
python -m models.demo.evaluate --selftest    the checker on drawn originals: its own ceiling
"""

import argparse
import json
import random
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from diffusers import DiffusionPipeline
from PIL import Image, ImageDraw

from models.demo.captions import canonical, paraphrase
from models.demo.checker import check
from models.demo.drawing import draw
from models.demo.export import revision
from models.demo.wording import with_stray_words
from models.demo.world import KINDS, Spec, kind_of, sample_spec

HERE: Final = Path(__file__).parent
LEAST_SELFTEST_SCORE: Final = 0.97
Table = dict[str, dict[str, float]]


def held_out_specs(per_kind: int, seed: int = 99) -> list[Spec]:
    """``per_kind`` specs of each kind, of combinations that training never saw."""
    rng = random.Random(seed)
    return [sample_spec(rng, kind, want_held_out=True) for kind in KINDS for _ in range(per_kind)]


def prompts_for(specs: Sequence[Spec], wording: str, seed: int = 7) -> list[str]:
    """A prompt for each spec: ``canonical``, ``paraphrase`` or ``stray`` (words put in front)."""
    rng = random.Random(seed)
    if wording == "paraphrase":
        return [paraphrase(spec, rng).text for spec in specs]
    if wording == "stray":
        return [with_stray_words(canonical(spec), rng) for spec in specs]
    return [canonical(spec) for spec in specs]


def tally(specs: Sequence[Spec], images: Sequence[Image.Image]) -> Table:
    """Share of right answers by kind and attribute, and how many pictures were judged (``n``)."""
    answers: dict[str, dict[str, list[bool]]] = {kind: {} for kind in KINDS}
    counts = dict.fromkeys(KINDS, 0)
    for spec, image in zip(specs, images, strict=True):
        kind = kind_of(spec)
        counts[kind] += 1
        for name, right in check(spec, image).items():
            answers[kind].setdefault(name, []).append(right)
    return {
        kind: {"n": counts[kind]}
        | {name: round(float(np.mean(right)), 3) for name, right in by_name.items()}
        for kind, by_name in answers.items()
        if counts[kind]
    }


def selftest(per_kind: int) -> Table:
    """The checker's score on true drawings of held-out specs."""
    rng = random.Random(3)
    specs = held_out_specs(per_kind)
    return tally(specs, [draw(spec, rng) for spec in specs])


def generate(
    pipe: Any, prompts: Sequence[str], *, steps: int, guidance: float, batch: int = 8
) -> list[Image.Image]:
    """One picture per prompt; picture i has seed i, whatever the batch size."""
    images: list[Image.Image] = []
    for start in range(0, len(prompts), batch):
        part = list(prompts[start : start + batch])
        seeds = [torch.Generator().manual_seed(start + i) for i in range(len(part))]
        out = pipe(part, num_inference_steps=steps, guidance_scale=guidance, generator=seeds)
        images += out.images
    return images


def load_pipeline(folder: Path) -> Any:
    """The pipeline in ``folder``, in single precision and without a progress bar."""
    pipe = DiffusionPipeline.from_pretrained(folder, dtype=torch.float32, local_files_only=True)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def contact_sheet(
    images: Sequence[Image.Image], titles: Sequence[str], columns: int = 8
) -> Image.Image:
    """The pictures in a grid, each over its title."""
    cell, line = 132, 34
    rows = -(-len(images) // columns)
    sheet = Image.new("RGB", (columns * cell, rows * (cell + line)), "white")
    pen = ImageDraw.Draw(sheet)
    for i, (image, title) in enumerate(zip(images, titles, strict=True)):
        x, y = i % columns * cell, i // columns * (cell + line)
        sheet.paste(image, (x + 2, y + 2))
        wrapped = [title[k : k + 21] for k in range(0, min(len(title), 63), 21)]
        pen.multiline_text(
            (x + 2, y + cell), "\n".join(wrapped), fill="black", font_size=9, spacing=1
        )
    return sheet


def print_table(title: str, table: Table) -> None:
    """The table for people, a line per kind."""
    print(title)
    for kind, scores in table.items():
        print(f"  {kind:7}" + "  ".join(f"{name} {value:g}" for name, value in scores.items()))


def evaluate(
    pipe: Any, per_kind: int, steps: int, guidance: float, wording: str
) -> tuple[Table, list[Image.Image], list[str]]:
    """Score ``pipe``; the table, the pictures and their prompts."""
    specs = held_out_specs(per_kind)
    prompts = prompts_for(specs, wording)
    images = generate(pipe, prompts, steps=steps, guidance=guidance)
    return tally(specs, images), images, prompts


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; 1 when the self-test is below its limit, else 0."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pipeline", type=Path, default=HERE / "pipeline")
    parser.add_argument("--out", type=Path, default=HERE / "evaluation.json")
    parser.add_argument("--per-kind", type=int, default=170, help="canonical prompts")
    parser.add_argument("--others-per-kind", type=int, default=30, help="of other wordings")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--guidance", type=float, default=2.0)
    parser.add_argument("--wording", default="canonical,paraphrase,stray")
    parser.add_argument("--sheet", type=Path, help="write a contact sheet of every 12th picture")
    parser.add_argument("--selftest", action="store_true")
    options = parser.parse_args(arguments)
    if options.selftest:
        table = selftest(options.per_kind)
        print_table("checker on drawn originals", table)
        return int(min(min(s.values()) for s in table.values()) < LEAST_SELFTEST_SCORE)
    return _evaluate_and_write(options)


def _evaluate_and_write(options: argparse.Namespace) -> int:
    pipe = load_pipeline(options.pipeline)
    report: dict[str, Any] = {
        "revision": revision(options.pipeline),
        "steps": options.steps,
        "guidance_scale": options.guidance,
        "checker_on_originals": selftest(options.per_kind),
    }
    for wording in options.wording.split(","):
        began = time.monotonic()
        count = options.per_kind if wording == "canonical" else options.others_per_kind
        table, images, prompts = evaluate(pipe, count, options.steps, options.guidance, wording)
        print_table(f"{wording}: {time.monotonic() - began:.0f} s", table)
        report[wording] = table
        if options.sheet and wording == "canonical":
            contact_sheet(images[::12], prompts[::12]).save(options.sheet)
    options.out.write_text(json.dumps(report, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
