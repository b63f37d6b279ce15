"""Gaussian corruption, x_t = alpha_t x_0 + sigma_t eps, for any schedule.

A step back from t to s < t is linear in x_t, the estimate and fresh noise. DDPM, DDIM, the reverse SDE and
everything between them differ in the rule that gives the coefficients, and in nothing else.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from genbench.contracts import Corruption, Fitted, Law, Level, Noise, Posterior
from genbench.corruptions.schedules import Schedule
from genbench.ops.combine import Term, combine
from genbench.ops.random import Randomness, Stream


@dataclass(frozen=True)
class GaussianLaw:
    """N(sum of coefficient_i tensor_i, std^2 I), kept as its terms so that a draw is one fused update.

    coefficients and std: float64, shape [] or [B]; terms: [B, ...], tensors or Combinations.
    """

    coefficients: Sequence[Tensor]
    terms: Sequence[Term]
    std: Tensor

    @property
    def mean(self) -> Tensor:
        return combine(self.coefficients, self.terms)

    def sample(self, randomness: Randomness, step: int) -> Tensor:
        return combine(self.coefficients, self.terms, self.std, randomness, step, Stream.STEP)


class Linear(Corruption):
    """x_t = alpha_t x_0 + sigma_t eps in coordinates that may be another orthonormal basis than pixels.

    Levels are numbers (shape [] or [B]), or one for each coordinate ([1 or B, 1, H, W]).
    """

    invertible_in_noise = True
    gaussian_noise = True

    @abstractmethod
    def alpha(self, t: Tensor) -> Tensor:
        """Signal level, float64."""

    @abstractmethod
    def sigma(self, t: Tensor) -> Tensor:
        """Noise level, float64."""

    @abstractmethod
    def level(self, t: Tensor) -> Level:
        """Everything a rule needs to know of time t."""

    def coordinates(self, x: Tensor) -> Tensor:
        """Images [B, C, H, W] in the basis in which levels hold."""
        return x

    def image(self, coordinates: Term) -> Term:
        """The inverse of `coordinates`; a Combination may stay one."""
        return coordinates

    def step(self, coefficients: Sequence[Tensor], terms: Sequence[Term], std: Tensor) -> Law:
        """The law of sum coefficient_i term_i + std z, coefficients and std being levels, z ~ N(0, I)."""
        return GaussianLaw(coefficients, terms, std)

    def draw(self, shape: Sequence[int], randomness: Randomness) -> Tensor:
        return randomness.normal(shape[1:], stream=Stream.NOISE)

    def renoised(self, x_t: Tensor, x0: Posterior, s: Tensor, t: Tensor, fresh: float) -> Law:
        there, here = self.level(s), self.level(t)
        added = fresh * there.sigma
        return self.step(there.keeping(here, added), (x_t, x0.estimate), added)


REMEMBERED = 10_000
"""Times whose levels a corruption keeps, more than any grid has."""


class Gaussian(Linear):
    """Scaling and Gaussian noise of pixels, by a schedule.

    Levels at single times are worked out once: a sampler asks for them several times a step, in every batch,
    and on small images that would take longer than the step itself.
    """

    def __init__(self, schedule: Schedule) -> None:
        self.schedule = schedule
        self.steps = schedule.steps
        self._known: dict[float, Level] = {}

    def __str__(self) -> str:
        return str(self.schedule)

    def alpha(self, t: Tensor) -> Tensor:
        """Signal level, float64 of t's shape."""
        return self.level(t).alpha if _single(t) else self.schedule.alpha(t)

    def sigma(self, t: Tensor) -> Tensor:
        """Noise level, float64 of t's shape."""
        return self.level(t).sigma if _single(t) else self.schedule.sigma(t)

    def apply(self, x0: Tensor, noise: Noise, t: Tensor) -> Tensor:
        return combine((self.alpha(t), self.sigma(t)), (x0, noise))

    def level(self, t: Tensor) -> Level:
        if not _single(t):
            return self._level(t)
        time = float(t)
        if time not in self._known:
            if len(self._known) >= REMEMBERED:
                self._known.clear()
            # What was made in inference mode could never be used where gradients are taken.
            with torch.inference_mode(False):
                self._known[time] = self._level(torch.tensor(time, dtype=torch.float64))
        return self._known[time]

    def _level(self, t: Tensor) -> Level:
        schedule = self.schedule
        return Level(t, schedule.alpha(t), schedule.sigma(t), schedule.alpha_rate(t), schedule.sigma_rate(t))

    def terminal(self, shape: Sequence[int], randomness: Randomness, fitted: Fitted) -> Tensor:
        noise = randomness.normal(shape[1:], stream=Stream.TERMINAL)
        return noise if self.schedule.terminal_std == 1 else noise.mul_(self.schedule.terminal_std)

    def draw_times(self, count: int, device: torch.device) -> Tensor:
        return self.schedule.draw_times(count, device)

    def conditioning(self, t: Tensor) -> Tensor:
        return self.schedule.conditioning(t)


def _single(t: Tensor) -> bool:
    """Is t one time, known to the CPU, through which no gradient is taken?"""
    return t.ndim == 0 and t.device.type == "cpu" and not t.requires_grad
