"""Blurring diffusion: Gaussian corruption whose signal fades at a pace of its own in every coefficient.

    x_t = M' (alpha_t d_t * M x_0) + sigma_t eps,      M orthonormal, d_t the gains of a fading

White noise is white in every orthonormal basis, so in the coefficients this is Gaussian corruption one by
one, and the rules of Gaussian corruption are its rules (Hoogeboom & Salimans 2023, section 4).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from genbench.contracts import Fitted, Law, Level, Noise
from genbench.corruptions.bases import Basis
from genbench.corruptions.fading import Fading
from genbench.corruptions.gaussian import Linear
from genbench.corruptions.schedules import Schedule
from genbench.ops.combine import Term, combine, expand, tensor
from genbench.ops.random import Randomness, Stream


@dataclass(frozen=True)
class SpectralLaw:
    """The law of M' (sum coefficient_i * M term_i + std * M z), z white in pixels."""

    basis: Basis
    coefficients: Sequence[Tensor]
    terms: Sequence[Term]
    std: Tensor

    def _sum(self) -> Tensor:
        return combine(self.coefficients, [self.basis.forward(tensor(term)) for term in self.terms])

    @property
    def mean(self) -> Tensor:
        return self.basis.inverse(self._sum())

    def sample(self, randomness: Randomness, step: int) -> Tensor:
        total = self._sum()
        if bool((self.std > 0).any()):
            noise = randomness.normal(total.shape[1:], step, Stream.STEP).to(total.dtype)
            total.addcmul_(self.basis.forward(noise), expand(self.std, total))
        return self.basis.inverse(total)


class Spectral(Linear):
    """schedule: alpha and sigma; fading: d_t. Levels are [1, 1, H, W] for t [], [B, 1, H, W] for t [B]."""

    def __init__(self, schedule: Schedule, fading: Fading, image_shape: Sequence[int]) -> None:
        self.schedule, self.fading = schedule, fading
        self.steps = schedule.steps
        _, self.height, self.width = image_shape

    def __str__(self) -> str:
        return f"{type(self.fading).__name__} over {self.schedule}"

    def _gains(self, t: Tensor) -> tuple[Tensor, Tensor]:
        shape = (-1, 1, self.height, self.width)
        gains, rates = self.fading.gains(t, self.height, self.width)
        return gains.reshape(shape), rates.reshape(shape)

    def alpha(self, t: Tensor) -> Tensor:
        return _column(self.schedule.alpha(t)) * self._gains(t)[0]

    def sigma(self, t: Tensor) -> Tensor:
        return _column(self.schedule.sigma(t))

    def level(self, t: Tensor) -> Level:
        schedule, (gains, rates) = self.schedule, self._gains(t)
        alpha = _column(schedule.alpha(t))
        rate = _column(schedule.alpha_rate(t)) * gains + alpha * rates
        return Level(_column(t.double()), alpha * gains, self.sigma(t), rate, _column(schedule.sigma_rate(t)))

    def coordinates(self, x: Tensor) -> Tensor:
        # A network's output may be of half the precision that the transform is to have.
        return self.fading.basis.forward(x if x.dtype == torch.float64 else x.float())

    def image(self, coordinates: Term) -> Tensor:
        return self.fading.basis.inverse(tensor(coordinates))

    def step(self, coefficients: Sequence[Tensor], terms: Sequence[Term], std: Tensor) -> Law:
        return SpectralLaw(self.fading.basis, coefficients, terms, std)

    def apply(self, x0: Tensor, noise: Noise, t: Tensor) -> Tensor:
        faded = self.image(combine((self.alpha(t),), (self.coordinates(x0),)))
        return combine((torch.ones_like(self.sigma(t)), self.sigma(t)), (faded, noise))

    def terminal(self, shape: Sequence[int], randomness: Randomness, fitted: Fitted) -> Tensor:
        return randomness.normal(shape[1:], stream=Stream.TERMINAL) * self.schedule.terminal_std

    def draw_times(self, count: int, device: torch.device) -> Tensor:
        return self.schedule.draw_times(count, device)

    def conditioning(self, t: Tensor) -> Tensor:
        return self.schedule.conditioning(t)


def _column(values: Tensor) -> Tensor:
    return values.reshape(-1, 1, 1, 1)
