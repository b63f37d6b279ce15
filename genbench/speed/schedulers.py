"""diffusers' schedulers, set up for the very steps that ours take, on the times that ours visit."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from genbench.speed.plain import Answers, Levels

TIMES = 1000
"""Of Ho's schedule, `corruptions.schedules.Linear`."""

WEIGHT = 2.5
"""Of guidance: eps = u + WEIGHT (c - u)."""


def _index(times: Tensor) -> list[int]:
    """The 0-based indices of times i / T, which is how diffusers counts them."""
    return [round(float(t) * TIMES) - 1 for t in times]


def _spaced(scheduler: Any, times: Tensor, levels: Levels, device: torch.device) -> None:
    scheduler.set_timesteps(len(times), device=device)


def _named(scheduler: Any, times: Tensor, levels: Levels, device: torch.device) -> None:
    scheduler.set_timesteps(timesteps=_index(times), device=device)


def _in_sigma(scheduler: Any, times: Tensor, levels: Levels, device: torch.device) -> None:
    """Its own number of times, but our noise levels, each but the ends twice: one an evaluation."""
    scheduler.set_timesteps(len(times), device=device)
    sigmas = torch.tensor([sigma for _, sigma in levels] + [0.0])
    scheduler.sigmas = torch.cat((sigmas[:1], sigmas[1:-1].repeat_interleave(2), sigmas[-1:]))


@dataclass(frozen=True)
class Scheduler:
    """One of diffusers' classes.

    name: the class; settings: its arguments; set_times: gives it our times; evaluations: calls of its `step`
    in one of ours; arguments: of `step`; guidance: the weight, where a pipeline mixes two outputs before it.
    """

    name: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    set_times: Callable[[Any, Tensor, Levels, torch.device], None] = _spaced
    evaluations: int = 1
    arguments: Mapping[str, Any] = field(default_factory=dict)
    guidance: float | None = None


DDPM = Scheduler("DDPMScheduler", {"variance_type": "fixed_large"})
GUIDED_DDPM = Scheduler("DDPMScheduler", {"variance_type": "fixed_large"}, guidance=WEIGHT)
DDIM = Scheduler("DDIMScheduler", {"clip_sample": False})
NOISY_DDIM = Scheduler("DDIMScheduler", {"clip_sample": False}, arguments={"eta": 1.0})
DPMPP_2M = Scheduler(
    "DPMSolverMultistepScheduler",
    {"algorithm_type": "dpmsolver++", "solver_order": 2, "final_sigmas_type": "zero"},
    _named,
)
HEUN = Scheduler("HeunDiscreteScheduler", set_times=_in_sigma, evaluations=2)


class Walking:
    """A scheduler taking every step between given times; `prepare` comes before each walk."""

    def __init__(
        self,
        diffusers: Any,
        scheduler: Scheduler,
        times: Tensor,
        levels: Levels,
        answers: Answers,
        device: torch.device,
    ) -> None:
        self.scheduler, self.times, self.levels = scheduler, times, levels
        self.answers, self.device = answers, device
        betas = {"beta_start": 1e-4, "beta_end": 0.02, "num_train_timesteps": TIMES}
        self.theirs = getattr(diffusers, scheduler.name)(**betas, **scheduler.settings)

    def prepare(self) -> None:
        """Forgets the last walk: multistep schedulers remember estimates, and where they are."""
        self.scheduler.set_times(self.theirs, self.times, self.levels, self.device)

    def __call__(self, x: Tensor) -> Tensor:
        evaluations, weight = self.scheduler.evaluations, self.scheduler.guidance
        for number, t in enumerate(self.theirs.timesteps[: (len(self.times) - 1) * evaluations]):
            outputs = self.answers[number // evaluations % len(self.answers)]
            output = outputs[number % evaluations]
            if weight is not None:
                output = outputs[1] + weight * (outputs[0] - outputs[1])
            x = self.theirs.step(output, t, x, **self.scheduler.arguments, return_dict=False)[0]
        return x
