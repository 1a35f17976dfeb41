"""What a scheduler takes the finished latents for, midway: what a preview should show.

The latents of a step are the picture under the noise that is left; half-way they show little else.
Each step's estimate of the latents without noise is computed by the scheduler anyway. Where it
gives it away differs: a second value of `step` (Euler, DDIM, DDPM, LCM), the newest of its
``model_outputs`` (DPM-Solver++ and UniPC, which predict the sample), or nowhere (flow matching:
sample - sigma x velocity, Lipman et al. 2022). For others the latents themselves have to do.
"""

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch


class Estimates:
    """The estimate of the newest step; None before the first, or where there is none."""

    def __init__(self) -> None:
        self.latest: torch.Tensor | None = None

    def shown(self, latents: torch.Tensor) -> torch.Tensor:
        """Return what to show in place of ``latents``: the estimate if it is of their shape."""
        latest = self.latest
        return latents if latest is None or latest.shape != latents.shape else latest


@contextmanager
def estimating(scheduler: Any) -> Iterator[Estimates]:
    """Keep the estimates of ``scheduler``'s steps while the block runs; change nothing else."""
    estimates = Estimates()
    step: Callable[..., Any] = scheduler.step

    @functools.wraps(step)  # pipelines look at its signature
    def observed(model_output: Any, timestep: Any, sample: Any, *args: Any, **more: Any) -> Any:
        answer = step(model_output, timestep, sample, *args, **more)
        estimates.latest = _estimate(scheduler, answer, model_output, sample)
        return answer

    scheduler.step = observed
    try:
        yield estimates
    finally:
        del scheduler.step  # of the instance: the class's own is back
        estimates.latest = None


def _estimate(
    scheduler: Any, answer: Any, velocity: torch.Tensor, sample: torch.Tensor
) -> torch.Tensor | None:
    if isinstance(answer, tuple) and len(answer) > 1:
        second: torch.Tensor = answer[1]
        return second
    config = scheduler.config
    solves_for_sample = str(config.get("algorithm_type", "")).endswith("dpmsolver++")
    if solves_for_sample or config.get("predict_x0"):
        newest: torch.Tensor | None = scheduler.model_outputs[-1]
        return newest
    if type(scheduler).__name__ == "FlowMatchEulerDiscreteScheduler":
        sigma = scheduler.sigmas[scheduler.step_index - 1]  # the step has moved on
        estimate: torch.Tensor = sample - sigma * velocity
        return estimate
    return None
