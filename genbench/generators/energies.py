"""MDSM: one energy, trained to point from noisy images to clean ones at many noise levels at once.

    L = (1/B) sum_i || grad E(x_i + sigma_i eps_i) / sigma_i - eps_i / sigma_0^2 ||^2
      = (1/B) sum_i || (x_i - x~_i) / (sigma_i sigma_0^2) + grad E(x~_i) / sigma_i ||^2,   x~ = x + sigma eps

(Li, Chen & Sommer 2019, arXiv 1910.07762). The energy is told no noise level. Its optimum is therefore a
posterior mean over levels as well as images,

    x~ - sigma_0^2 grad E(x~) = E[x | x~]      with level i weighted by sigma_i^-2,

and E is the log density of no single level: sigma_0 sets its units. Data that is one point gives
E(x) = ||x||^2 / (2 sigma_0^2), at which Langevin dynamics of temperature T has the deviation
sigma_0 sqrt(T): cooling goes through the noise levels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from genbench.contracts import Batch, Generator, Losses, Phase, Step, UserError
from genbench.ops.combine import expand
from genbench.ops.gradients import gradient


class Levels(Protocol):
    """Noise levels spread over a batch, in the order of its images."""

    def __call__(self, count: int) -> Tensor:
        """sigma_1 ... sigma_count, float64, in the units of images in [-1, 1]."""


@dataclass(frozen=True)
class LinearLevels:
    """From `low` to `high`, both included, in equal differences (the paper's choice for CIFAR-10)."""

    low: float
    high: float

    def __post_init__(self) -> None:
        _check_levels(self.low, self.high)

    def __call__(self, count: int) -> Tensor:
        return torch.linspace(self.low, self.high, count, dtype=torch.float64)


@dataclass(frozen=True)
class GeometricLevels:
    """From `low` to `high`, both included, in equal ratios (the paper's choice for Fashion-MNIST)."""

    low: float
    high: float

    def __post_init__(self) -> None:
        _check_levels(self.low, self.high)

    def __call__(self, count: int) -> Tensor:
        fraction = torch.linspace(0, 1, count, dtype=torch.float64)
        # Each end is exact: a power of 0 is 1.
        return self.low ** (1 - fraction) * self.high**fraction


def _check_levels(low: float, high: float) -> None:
    if not 0 < low <= high:
        raise UserError(
            f"noise levels go from model.levels.low up to model.levels.high, both above 0, found {low} "
            f"and {high}"
        )


class MDSM(Generator):
    """An energy trained by multiscale denoising score matching.

    network: images [B, C, H, W] to energies [B], twice differentiable; levels: the noise levels of a batch,
    spread over it deterministically (data order is random, so no image keeps its level); reference_sigma:
    sigma_0 above; image_shape: (C, H, W). Levels and sigma_0 are in the units of images in [-1, 1].

    A rank or a micro-batch spreads all levels over its own images.
    """

    def __init__(
        self, network: nn.Module, levels: Levels, reference_sigma: float, image_shape: Sequence[int]
    ) -> None:
        super().__init__()
        if not reference_sigma > 0:
            raise UserError(f"sigma_0 is above 0, found model.reference_sigma={reference_sigma}")
        self.network = network
        self.levels = levels
        self.reference_sigma = reference_sigma
        channels, height, width = image_shape
        self.image_shape = (channels, height, width)

    def phases(self) -> Sequence[Phase]:
        return [Phase("energy", self.network, self.loss)]

    def energy(self, x: Tensor) -> Tensor:
        """E(x), [B]; in nats only at temperature 1."""
        return self.network(x)

    def loss(self, batch: Batch, step: Step) -> Losses:
        """L above; logs as "error" the jump's squared error a pixel over sigma_i^2: 1 for a flat energy."""
        x = batch.images
        sigma = expand(self.levels(len(x)), x)
        noise = torch.randn_like(x)
        slope = gradient(self.energy, x + sigma * noise, create_graph=True)
        total = (slope / sigma - noise / self.reference_sigma**2).square().flatten(1).sum(dim=1).mean()
        return Losses(total, {"error": total * self.reference_sigma**4 / x[0].numel()})
