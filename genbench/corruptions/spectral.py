"""Gaussian corruption with a signal of its own for every coefficient in an orthonormal basis.

    x_t = M' (alpha_t d_t * M x_0) + sigma_t eps,      M orthonormal, d_t one gain in (0, 1] a coefficient

White noise is white in every orthonormal basis, so this is the Gaussian corruption coefficient by
coefficient: samplers step in the basis, and every rule, solver and likelihood applies as it is
(Hoogeboom & Salimans 2023, section 4; Rissanen et al. 2023).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor

from genbench.contracts import Level, Noise
from genbench.corruptions.bases import Basis, BlockMeans, Cosines
from genbench.corruptions.gaussian import Gaussian
from genbench.corruptions.schedules import Schedule
from genbench.ops.combine import combine


class Fading(ABC):
    """How the coefficients of an image fade over time, beside the schedule's own signal level."""

    basis: Basis

    @abstractmethod
    def gains(self, t: Tensor, height: int, width: int) -> Tensor:
        """d_t, float64 of t's shape and [height, width] after it; 1 everywhere at t = 0."""

    @abstractmethod
    def rates(self, t: Tensor, height: int, width: int) -> Tensor:
        """d/dt of `gains`."""


class Heat(Fading):
    """Blur by the heat equation, d = (1 - least) e^(-lambda s_t^2 / 2) + least, s_t = blur sin^2(pi t / 2).

    blur: the largest standard deviation in pixels; least: what is left of the finest waves. Hoogeboom &
    Salimans 2023, eq. 24 and appendix A. With blur = 0 nothing fades.
    """

    def __init__(self, blur: float, least: float = 0.001) -> None:
        self.basis: Cosines = Cosines()
        self.blur, self.least = blur, least

    def _exponent(self, t: Tensor, height: int, width: int) -> tuple[Tensor, Tensor]:
        """lambda s_t^2 / 2 and its rate."""
        decay = self.basis.decay(height, width).to(t.device)
        t = t.double()[..., None, None]
        wave = torch.sin(t * math.pi / 2) ** 2
        rate = math.pi / 2 * torch.sin(t * math.pi)
        return decay * (self.blur * wave) ** 2 / 2, decay * self.blur**2 * wave * rate

    def gains(self, t: Tensor, height: int, width: int) -> Tensor:
        exponent, _ = self._exponent(t, height, width)
        return (1 - self.least) * torch.exp(-exponent) + self.least

    def rates(self, t: Tensor, height: int, width: int) -> Tensor:
        exponent, rate = self._exponent(t, height, width)
        return -(1 - self.least) * rate * torch.exp(-exponent)


class Pixelation(Fading):
    """Means over ever larger blocks: levels of detail fade one after the other, the finest first.

    least: what is left of a level once it has gone. The mean of the whole image stays.
    """

    def __init__(self, least: float = 0.001) -> None:
        self.basis: BlockMeans = BlockMeans()
        self.least = least

    def _place(self, t: Tensor, height: int, width: int) -> tuple[Tensor, int]:
        """How far each coefficient's level has faded, from 0 to 1, and the number of levels."""
        rows, columns = (self.basis.levels(side).to(t.device) for side in (height, width))
        level = torch.minimum(rows[:, None], columns)
        count = int(level.max())
        faded = count * t.double()[..., None, None] - level
        return torch.where(level < count, faded, torch.zeros_like(faded)).clamp(0, 1), count

    def gains(self, t: Tensor, height: int, width: int) -> Tensor:
        faded, _ = self._place(t, height, width)
        return 1 - (1 - self.least) * faded

    def rates(self, t: Tensor, height: int, width: int) -> Tensor:
        faded, count = self._place(t, height, width)
        fading = (faded > 0) & (faded < 1)
        return torch.where(fading, -count * (1 - self.least), 0.0).double()


class Spectral(Gaussian):
    """A `Gaussian` corruption whose signal level is a schedule's times the gains of a `Fading`.

    Levels have the shape [1, 1, H, W] for t [], and [B, 1, H, W] for t [B].
    """

    def __init__(self, schedule: Schedule, fading: Fading, image_shape: Sequence[int]) -> None:
        super().__init__(schedule)
        self.fading = fading
        _, self.height, self.width = image_shape

    def __str__(self) -> str:
        return f"{type(self.fading).__name__} over {self.schedule}"

    def alpha(self, t: Tensor) -> Tensor:
        return _column(self.schedule.alpha(t)) * self._gains(t)

    def sigma(self, t: Tensor) -> Tensor:
        return _column(self.schedule.sigma(t))

    def _gains(self, t: Tensor) -> Tensor:
        return self.fading.gains(t, self.height, self.width).reshape(-1, 1, self.height, self.width)

    def level(self, t: Tensor) -> Level:
        schedule, fading = self.schedule, self.fading
        rates = fading.rates(t, self.height, self.width).reshape(-1, 1, self.height, self.width)
        rate = _column(schedule.alpha_rate(t)) * self._gains(t) + _column(schedule.alpha(t)) * rates
        return Level(_column(t.double()), self.alpha(t), self.sigma(t), rate, _column(schedule.sigma_rate(t)))

    def state(self, images: Tensor) -> Tensor:
        return self.fading.basis.forward(images)

    def image(self, state: Tensor) -> Tensor:
        return self.fading.basis.inverse(state)

    def apply(self, x0: Tensor, noise: Noise, t: Tensor) -> Tensor:
        faded = self.image(combine((self.alpha(t),), (self.state(x0),)))
        return combine((torch.ones_like(self.sigma(t)), self.sigma(t)), (faded, noise))


def _column(values: Tensor) -> Tensor:
    return values.reshape(-1, 1, 1, 1)
