"""Langevin dynamics on an energy, cooled, and one denoising jump at the end (Li, Chen & Sommer 2019).

    x <- N(0, start_std^2 I)
    x <- x - (epsilon^2 / 2) grad E(x) + epsilon sqrt(T) z,     z ~ N(0, I),  T by the cooling schedule
    x <- x - sigma_0^2 grad E(x)                                the jump

For E = ||x||^2 / (2 v) and a constant T this has the stationary variance T v / (1 - epsilon^2 / (4 v)).

The paper samples in [0, 1] from 0.5 + N(0, I) with epsilon = .02; in [-1, 1] that is N(0, 2^2 I) with
epsilon = .04, the temperatures being the same.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from genbench.contracts import Energy, Fitted, Sampler, Samples, UserError
from genbench.ops.combine import combine
from genbench.ops.random import Randomness, Stream
from genbench.samplers.counting import Counted


class Cooling(Protocol):
    """A stretch of the schedule."""

    steps: int

    def temperature(self, step: int) -> float:
        """T >= 0 at its step 0 ... steps - 1."""


@dataclass(frozen=True)
class Hold:
    """`steps` steps at one temperature."""

    steps: int
    at: float

    def __post_init__(self) -> None:
        _check(self.steps, self.at)

    def temperature(self, step: int) -> float:
        return self.at


@dataclass(frozen=True)
class Exponential:
    """From `start`, where the stretch before has ended, to `end` at the last step, in equal ratios."""

    steps: int
    start: float
    end: float

    def __post_init__(self) -> None:
        _check(self.steps, self.start, self.end)
        if not min(self.start, self.end) > 0:
            raise UserError(
                f"cooling in equal ratios never reaches zero, found {self.start} to {self.end}; "
                "end it above zero and add a linear stretch"
            )

    def temperature(self, step: int) -> float:
        return self.start * (self.end / self.start) ** ((step + 1) / self.steps)


@dataclass(frozen=True)
class Linear:
    """From `start`, where the stretch before has ended, to `end` at the last step, in equal differences."""

    steps: int
    start: float
    end: float

    def __post_init__(self) -> None:
        _check(self.steps, self.start, self.end)

    def temperature(self, step: int) -> float:
        return self.start + (self.end - self.start) * ((step + 1) / self.steps)


def _check(steps: int, *temperatures: float) -> None:
    if steps < 0 or min(temperatures) < 0:
        raise UserError(
            f"a stretch of sampler.cooling has 0 or more steps at temperatures of 0 or more, found {steps} "
            f"steps and {', '.join(map(str, temperatures))}"
        )


class EnergyLangevin(Sampler):
    """The sampler above.

    epsilon: the step size, in units of images in [-1, 1]; cooling: stretches of the temperature schedule by
    name, run in order; start_std: of the normal law that images start from; jump: whether the denoising jump
    is taken, which needs a model that says its sigma_0 (`reference_sigma`).
    """

    needs = Energy

    def __init__(
        self, epsilon: float, cooling: Mapping[str, Cooling], start_std: float = 2.0, jump: bool = True
    ) -> None:
        if not epsilon > 0 or start_std < 0:
            raise UserError(
                f"Langevin dynamics needs sampler.epsilon > 0 and sampler.start_std >= 0, found {epsilon} "
                f"and {start_std}"
            )
        self.epsilon = epsilon
        self.start_std = start_std
        self.jump = jump
        self.temperatures = [
            stretch.temperature(step) for stretch in cooling.values() for step in range(stretch.steps)
        ]

    def check(self, model: Any) -> None:
        if self.jump and not hasattr(model, "reference_sigma"):
            raise UserError(
                "the last step of energy_langevin is a jump by sigma_0^2 grad E, and this model "
                "has no reference_sigma to say what sigma_0 is. Give it one, or type sampler.jump=false."
            )

    def evaluations(self) -> int:
        return len(self.temperatures) + self.jump

    def __call__(
        self,
        model: Energy,
        randomness: Randomness,
        labels: Tensor | None = None,
        fitted: Fitted | None = None,
    ) -> Samples:
        counted = Counted(model, randomness.batch)
        x = self.start_std * randomness.normal(model.image_shape, stream=Stream.TERMINAL)
        one, drift = _number(1.0), _number(-(self.epsilon**2) / 2)
        for step, temperature in enumerate(self.temperatures):
            noise = _number(self.epsilon * math.sqrt(temperature))
            x = combine((one, drift), (x, counted.gradient(x)), noise, randomness, step, Stream.STEP)
        if self.jump:
            x = combine((one, _number(-(counted.reference_sigma**2))), (x, counted.gradient(x)))
        return Samples(x, counted.nfe)


def _number(value: float) -> Tensor:
    return torch.tensor(value, dtype=torch.float64)
