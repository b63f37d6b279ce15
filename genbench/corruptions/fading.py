"""How the coefficients of an image fade over time: blur by the heat equation, and pixelation.

F_t(x) = M' (d_t * M x),     M an orthonormal basis, d_t in (0, 1] one gain for each coefficient
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor

from genbench.contracts import UserError
from genbench.corruptions.bases import Basis, BlockMeans, Cosines

Curve = tuple[Tensor, Tensor]
"""A function of time and its derivative, float64 of one shape."""


class Fading(ABC):
    """A family of degradations that are diagonal in a basis."""

    basis: Basis

    @abstractmethod
    def gains(self, t: Tensor, height: int, width: int) -> Curve:
        """d_t and its derivative in t, of t's shape and [height, width] after it; d_0 is 1."""

    def apply(self, images: Tensor, t: Tensor) -> Tensor:
        """F_t of images [B, C, H, W] at t [] or [B]."""
        gains, _ = self.gains(t.to(images.device, non_blocking=True), *images.shape[-2:])
        coefficients = self.basis.forward(images)
        return self.basis.inverse(coefficients * gains.unsqueeze(-3).to(images.dtype))


class Width(ABC):
    """The standard deviation of a blur over time, in pixels."""

    @abstractmethod
    def __call__(self, t: Tensor) -> Curve:
        """Width and its derivative; 0 at t = 0."""


class SineWidth(Width):
    """`largest` sin^2(pi t / 2) (Hoogeboom & Salimans 2023, eq. 24)."""

    def __init__(self, largest: float) -> None:
        self.largest = largest

    def __call__(self, t: Tensor) -> Curve:
        t = t.double()
        rate = math.pi / 2 * torch.sin(t * math.pi)
        return self.largest * torch.sin(t * math.pi / 2) ** 2, self.largest * rate


class GeometricWidth(Width):
    """From `smallest` at t = 0+ to `largest`, evenly in its logarithm (Rissanen et al. 2023); 0 at t = 0."""

    def __init__(self, smallest: float, largest: float) -> None:
        if not 0 < smallest < largest:
            raise UserError(f"blur from {smallest} to {largest} pixels: expected 0 < smallest < largest.")
        self.smallest, self.largest = smallest, largest

    def __call__(self, t: Tensor) -> Curve:
        t = t.double()
        growth = math.log(self.largest / self.smallest)
        width = torch.where(t > 0, self.smallest * torch.exp(growth * t), 0.0)
        return width, growth * width


class Heat(Fading):
    """Blur by the heat equation with reflecting edges, d = (1 - least) e^(-lambda s_t^2 / 2) + least.

    width: s_t; least: what is left of the finest waves.
    """

    def __init__(self, width: Width, least: float = 0.0) -> None:
        self.basis: Cosines = Cosines()
        self.width, self.least = width, least

    def gains(self, t: Tensor, height: int, width: int) -> Curve:
        decay = self.basis.decay(height, width).to(t.device, non_blocking=True)
        size, growth = (each[..., None, None] for each in self.width(t))
        left = torch.exp(-decay * size**2 / 2)
        return (1 - self.least) * left + self.least, -(1 - self.least) * left * decay * size * growth


class Pixelation(Fading):
    """Means over ever larger blocks: levels of detail fade one after the other, the finest first.

    least: what is left of a level once it has gone. The mean of the whole image stays.
    """

    def __init__(self, least: float = 0.0) -> None:
        self.basis: BlockMeans = BlockMeans()
        self.least = least

    def gains(self, t: Tensor, height: int, width: int) -> Curve:
        rows, columns = self.basis.levels(height), self.basis.levels(width)
        count = int(torch.maximum(rows[0], columns[0]))
        rows[0] = columns[0] = count  # the mean over a shorter side stays until the longer one's is reached
        level = torch.minimum(rows[:, None], columns).to(t.device, non_blocking=True)
        faded = count * t.double()[..., None, None] - level
        fading = (faded > 0) & (faded < 1) & (level < count)
        gone = torch.where(level < count, faded.clamp(0, 1), 0.0)
        return 1 - (1 - self.least) * gone, -(1 - self.least) * count * fading.double()
