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
from torch import Tensor, nn
from transformers import CLIPTextModel, CLIPTokenizer

from models.demo.denoiser import VPrediction, new_denoiser, new_scheduler, sample_timesteps
from models.demo.pool import LatentPool
from models.demo.text import TokenCache

_SAVE_EVERY_SECONDS: Final = 60.0
_EMA_DECAY: Final = 0.999


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


def averaged_denoiser(checkpoint: Path) -> nn.Module:
    """The denoiser with the averaged weights of ``checkpoint``."""
    model = new_denoiser()
    kept: dict[str, Any] = torch.load(checkpoint, weights_only=True)
    with torch.no_grad():
        for mine, other in zip(model.parameters(), kept["average"], strict=True):
            mine.copy_(other)
    return model


def _share_gradients(parameters: list[nn.Parameter], progress: float, workers: int) -> float:
    """Average gradients and progress over the processes; the average progress comes back."""
    gradients = [p.grad for p in parameters if p.grad is not None]
    flat = torch.cat([*(g.reshape(-1) for g in gradients), torch.tensor([progress])])
    dist.all_reduce(flat)
    flat /= workers
    start = 0
    for gradient in gradients:
        gradient.copy_(flat[start : start + gradient.numel()].view_as(gradient))
        start += gradient.numel()
    return flat[-1].item()


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
    parameters = [p for p in state.model.parameters() if p.requires_grad]
    target = VPrediction(new_scheduler())
    cache = TokenCache(tokenizer)
    key = plan.seed + 7919 * plan.rank + state.step
    rng, generator = random.Random(key), torch.Generator().manual_seed(key)
    encoder.eval().requires_grad_(False)
    began = saved = time.monotonic()
    progress, first_step = 0.0, state.step
    while progress < 1:
        state.optimizer.param_groups[0]["lr"] = plan.rate(state.step - first_step, progress)
        clean, captions = pool.batch(plan.batch, rng)
        with torch.no_grad():
            text = encoder(cache.ids([c.text for c in captions])).last_hidden_state
        noise = torch.randn(clean.shape, generator=generator)
        steps = sample_timesteps(plan.batch, generator)
        noised, wanted = target.noised(clean, noise, steps)
        noised = noised.contiguous(memory_format=torch.channels_last)
        loss = (state.model(noised, steps, text).sample - wanted).square().mean()
        state.optimizer.zero_grad()
        loss.backward()
        progress = (time.monotonic() - began) / (60 * plan.minutes)
        if plan.workers > 1:
            progress = _share_gradients(parameters, progress, plan.workers)
        nn.utils.clip_grad_norm_(parameters, 1.0)
        state.optimizer.step()
        state.step += 1
        state.samples += plan.batch * plan.workers
        state.losses.append(loss.item())
        state.follow()
        if plan.rank == 0 and time.monotonic() - saved > _SAVE_EVERY_SECONDS:
            _report(state, progress)
            state.save(checkpoint)
            saved = time.monotonic()
    if plan.rank == 0:
        _report(state, progress)
        state.save(checkpoint)


def _report(state: TrainingState, progress: float) -> None:
    recent = sum(state.losses) / max(1, len(state.losses))
    state.losses.clear()
    clock = time.strftime("%H:%M:%S")
    print(
        f"{clock} step {state.step} samples {state.samples} loss {recent:.4f} done {progress:.3f}",
        flush=True,
    )
