"""Train the denoiser in one process or several, resumable, with a moving average of its weights."""

import math
import os
import random
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import torch
import torch.distributed as dist
from diffusers import UNet2DConditionModel
from torch import Tensor, nn
from transformers import CLIPTextModel, CLIPTokenizer

from models.demo.denoiser import VPrediction, new_denoiser, new_scheduler, sample_timesteps
from models.demo.pool import LatentPool
from models.demo.text import token_ids

_SAVE_EVERY_SECONDS: Final = 60.0
_MEET_EVERY_SECONDS: Final = 8.0
_EMA_DECAY: Final = 0.998


@dataclass(frozen=True, slots=True)
class Plan:
    """How long and how fast to train.

    The rate holds at ``peak_rate`` after a short warm-up and falls to ``final_rate`` along a
    cosine over the last ``decay_share`` of ``minutes``.
    """

    minutes: float
    batch: int = 16
    peak_rate: float = 1e-3
    final_rate: float = 3e-5
    decay_share: float = 0.4
    warmup_steps: int = 100
    workers: int = 1
    rank: int = 0
    seed: int = 0

    def rate(self, step: int, progress: float) -> float:
        """Learning rate at ``step`` of this run, ``progress`` (0..1) of its time."""
        into_decay = max(0.0, progress - (1 - self.decay_share)) / max(1e-9, self.decay_share)
        falling = 0.5 + 0.5 * math.cos(math.pi * min(1.0, into_decay))
        warm = min(1.0, (step + 1) / self.warmup_steps)
        return self.final_rate + (self.peak_rate * warm - self.final_rate) * falling


@dataclass
class TrainingState:
    """The denoiser, its moving average and its optimizer; one file on disk."""

    model: nn.Module
    average: list[Tensor]
    optimizer: torch.optim.Optimizer
    step: int = 0
    samples: int = 0
    losses: list[float] = field(default_factory=list)

    @classmethod
    def begin(cls, checkpoint: Path) -> "TrainingState":
        """A fresh state, or the one kept in ``checkpoint``."""
        model = new_denoiser().to(memory_format=torch.channels_last)
        optimizer = torch.optim.AdamW(
            model.parameters(), lr=1e-3, betas=(0.9, 0.99), weight_decay=1e-3, fused=True
        )
        state = cls(model, [p.detach().clone() for p in model.parameters()], optimizer)
        if checkpoint.exists():
            kept: dict[str, Any] = torch.load(checkpoint, weights_only=True)
            model.load_state_dict(kept["model"])
            optimizer.load_state_dict(kept["optimizer"])
            for mine, other in zip(state.average, kept["average"], strict=True):
                mine.copy_(other)
            state.step, state.samples = kept["step"], kept["samples"]
        return state

    def save(self, checkpoint: Path) -> None:
        """Write the state beside ``checkpoint`` and put it in place in one move."""
        kept = {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "average": self.average,
            "step": self.step,
            "samples": self.samples,
        }
        fresh = checkpoint.with_suffix(".fresh")
        torch.save(kept, fresh)
        os.replace(fresh, checkpoint)

    def follow(self) -> None:
        """Move the average towards the weights; quicker at the start, when they still change."""
        decay = min(_EMA_DECAY, (self.step + 1) / (self.step + 10))
        weights = [p.detach() for p in self.model.parameters()]
        torch._foreach_lerp_(self.average, weights, 1 - decay)


def averaged_denoiser(checkpoint: Path) -> UNet2DConditionModel:
    """The denoiser with the averaged weights of ``checkpoint``."""
    model = new_denoiser()
    kept: dict[str, Any] = torch.load(checkpoint, weights_only=True)
    with torch.no_grad():
        for mine, other in zip(model.parameters(), kept["average"], strict=True):
            mine.copy_(other)
    return model


def _meet(parameters: list[nn.Parameter], state: TrainingState, new_samples: int) -> None:
    """Average the weights over the processes, each counting for the samples that it has seen.

    The processes step on their own and meet by the clock, so that on a busy machine none waits
    long for another (local SGD, Stich 2019).
    """
    flat = torch.cat([p.detach().reshape(-1) for p in parameters])
    weighted = torch.cat([flat * new_samples, torch.tensor([float(new_samples)])])
    dist.all_reduce(weighted)
    total = weighted[-1].item()
    start = 0
    for parameter in parameters:
        part = weighted[start : start + parameter.numel()] / total
        parameter.data.copy_(part.view_as(parameter))
        start += parameter.numel()
    state.samples += round(total)


def _agreed_start(workers: int) -> float:
    """The same wall-clock time in all processes."""
    start = torch.tensor([time.time()], dtype=torch.float64)
    if workers > 1:
        dist.broadcast(start, src=0)
    return start.item()


class DenoiserTrainer:
    """One process's part of the training of one denoiser."""

    def __init__(
        self, pool: LatentPool, encoder: CLIPTextModel, tokenizer: CLIPTokenizer, seed: int
    ) -> None:
        self._pool = pool
        self._encoder = encoder.eval().requires_grad_(False)
        self._tokenizer = tokenizer
        self._target = VPrediction(new_scheduler())
        self._rng = random.Random(seed)
        self._generator = torch.Generator().manual_seed(seed)

    def loss(self, model: nn.Module, batch: int) -> Tensor:
        """Mean squared error of the v prediction on ``batch`` new samples."""
        clean, captions = self._pool.batch(batch, self._rng)
        with torch.no_grad():
            ids = token_ids(self._tokenizer, [c.text for c in captions])
            text = self._encoder(ids).last_hidden_state
        noise = torch.randn(clean.shape, generator=self._generator)
        steps = sample_timesteps(batch, self._generator)
        noised, wanted = self._target.noised(clean, noise, steps)
        noised = noised.contiguous(memory_format=torch.channels_last)
        answer: Tensor = model(noised, steps, text).sample
        return (answer - wanted).square().mean()


def train_denoiser(
    checkpoint: Path,
    pool: LatentPool,
    encoder: CLIPTextModel,
    tokenizer: CLIPTokenizer,
    plan: Plan,
) -> None:
    """Train from ``checkpoint`` (or from nothing) for ``plan.minutes``, keeping it up to date.

    Several processes with ``plan.workers`` > 1 have to share a torch.distributed group.
    """
    state = TrainingState.begin(checkpoint)
    parameters = list(state.model.parameters())
    trainer = DenoiserTrainer(pool, encoder, tokenizer, plan.seed + 7919 * plan.rank + state.step)
    start, seconds, first_step = _agreed_start(plan.workers), 60 * plan.minutes, state.step
    saved = time.time()
    for meeting in range(1, math.ceil(seconds / _MEET_EVERY_SECONDS) + 1):
        deadline, new_samples = start + meeting * _MEET_EVERY_SECONDS, 0
        while new_samples == 0 or time.time() < deadline:
            progress = min(1.0, (time.time() - start) / seconds)
            state.optimizer.param_groups[0]["lr"] = plan.rate(state.step - first_step, progress)
            loss = trainer.loss(state.model, plan.batch)
            state.optimizer.zero_grad()
            torch.autograd.backward(loss)
            nn.utils.clip_grad_norm_(parameters, 1.0)
            state.optimizer.step()
            state.losses.append(loss.item())
            state.step += 1
            state.follow()
            new_samples += plan.batch
        if plan.workers > 1:
            _meet(parameters, state, new_samples)
        else:
            state.samples += new_samples
        if plan.rank == 0 and time.time() - saved > _SAVE_EVERY_SECONDS:
            _report(state, progress)
            state.save(checkpoint)
            saved = time.time()
    if plan.rank == 0:
        state.follow()
        _report(state, 1.0)
        state.save(checkpoint)


def _report(state: TrainingState, progress: float) -> None:
    recent = sum(state.losses) / max(1, len(state.losses))
    state.losses.clear()
    clock = time.strftime("%H:%M:%S")
    print(
        f"{clock} step {state.step} samples {state.samples} loss {recent:.4f} done {progress:.3f}",
        flush=True,
    )
