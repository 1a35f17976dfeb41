"""Train the demo model from nothing: ``python -m models.demo.train``.

Stages: tokenizer, autoencoder, text, denoiser, export. Each leaves its result in the work folder
and is skipped where that is there already, except that the denoiser trains on from its checkpoint
for ``--minutes`` more, and the export is always written anew.
"""

import argparse
import multiprocessing
import random
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
import torch
import torch.distributed as dist
from transformers import CLIPTextModel, CLIPTokenizer

from models.demo import autoencoder, export, text, tokens
from models.demo.drawing import pixels
from models.demo.pool import draw_pool
from models.demo.training import Plan, train_denoiser
from models.demo.world import sample_spec

HERE: Final = Path(__file__).parent
CHECKPOINT: Final = "denoiser.pt"
PROJECTION: Final = "projection.npz"
_RENDEZVOUS: Final = "rendezvous"


def train_parts(work: Path, options: argparse.Namespace) -> None:
    """Make what the denoiser stands on: tokenizer, autoencoder and text encoder."""
    work.mkdir(parents=True, exist_ok=True)
    if not (work / "tokenizer").exists():
        tokens.build_tokenizer(work / "tokenizer")
    if not (work / "vae").exists():
        rng = random.Random(options.seed)
        images = np.stack([pixels(sample_spec(rng), rng) for _ in range(6000)])
        projection, bias = autoencoder.principal_projection(images)
        np.savez(work / PROJECTION, projection=projection, bias=bias)
        vae = autoencoder.train_autoencoder(
            images, (projection, bias), options.autoencoder_minutes, options.seed
        )
        vae.save_pretrained(work / "vae")
    if not (work / "text_encoder").exists():
        tokenizer = CLIPTokenizer.from_pretrained(work / "tokenizer")
        encoder, _ = text.train_text_encoder(tokenizer, options.text_minutes, options.seed)
        encoder.save_pretrained(work / "text_encoder")


def _denoiser_worker(rank: int, work: Path, options: argparse.Namespace) -> None:
    """One of ``options.workers`` processes; each draws its own pictures."""
    torch.set_num_threads(1)
    if options.workers > 1:
        dist.init_process_group(
            "gloo",
            init_method=(work / _RENDEZVOUS).resolve().as_uri(),
            rank=rank,
            world_size=options.workers,
        )
    pool = draw_pool(options.pictures, options.seed + 1 + rank, work / PROJECTION)
    plan = Plan(
        minutes=options.minutes,
        batch=options.batch,
        peak_rate=options.rate,
        decay_share=options.decay_share,
        workers=options.workers,
        rank=rank,
        seed=options.seed,
    )
    torch.manual_seed(options.seed)
    train_denoiser(
        work / CHECKPOINT,
        pool,
        CLIPTextModel.from_pretrained(work / "text_encoder"),
        CLIPTokenizer.from_pretrained(work / "tokenizer"),
        plan,
    )


def _run_workers(work: Path, options: argparse.Namespace) -> None:
    spawn = multiprocessing.get_context("spawn")
    workers = [
        spawn.Process(target=_denoiser_worker, args=(rank, work, options))
        for rank in range(options.workers)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    if any(worker.exitcode for worker in workers):
        raise SystemExit("a training process failed: its message is above")


def train_denoiser_stage(work: Path, options: argparse.Namespace) -> None:
    """Train the denoiser in ``options.workers`` processes of one thread each."""
    (work / _RENDEZVOUS).unlink(missing_ok=True)
    if options.workers == 1:
        _denoiser_worker(0, work, options)
    else:
        _run_workers(work, options)


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, default=HERE / "work")
    parser.add_argument("--out", type=Path, default=HERE / "pipeline")
    parser.add_argument("--minutes", type=float, default=90, help="of the denoiser, this time")
    parser.add_argument("--autoencoder-minutes", type=float, default=12)
    parser.add_argument("--text-minutes", type=float, default=7)
    parser.add_argument("--workers", type=int, default=2, help="processes of one thread each")
    parser.add_argument("--batch", type=int, default=16, help="samples a step and process")
    parser.add_argument("--pictures", type=int, default=40_000, help="drawn by each process")
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--decay-share", type=float, default=0.4)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only-export", action="store_true")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line: every stage in order."""
    options = _options(arguments)
    torch.set_num_threads(1)
    if not options.only_export:
        train_parts(options.work, options)
        train_denoiser_stage(options.work, options)
    revision = export.export(options.work, options.work / CHECKPOINT, options.out)
    print(f"{options.out}: revision {revision}, {export.size_bytes(options.out)} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
