"""How much the error at each time counts in a denoising loss.

flat         the target's squared error as it is: L_simple for eps (Ho et al. 2020, eq. 14)
noise        the noise's: sigma^2 |score error|^2 (Song & Ermon 2019, eq. 6; Song et al. 2021, eq. 7)
likelihood   g^2 |score error|^2, whose integral bounds the likelihood (Song et al. 2021b, theorem 1)
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from genbench.contracts import Level
from genbench.corruptions.gaussian_rules import squared_diffusion
from genbench.generators.parameterisations import Parameterisation


class Weighting(Protocol):
    """Weights of the squared error of a parameterisation's target."""

    def __call__(self, level: Level, parameterisation: Parameterisation) -> Tensor:
        """float64, of the shape of level.t."""


class Flat:
    """One."""

    def __call__(self, level: Level, parameterisation: Parameterisation) -> Tensor:
        return torch.ones_like(level.sigma)


class Noise:
    """Of the error in eps, whatever is predicted."""

    def __call__(self, level: Level, parameterisation: Parameterisation) -> Tensor:
        return parameterisation.noise_error(level.alpha, level.sigma) ** 2


class Likelihood:
    """g^2 times the squared error of the score."""

    def __call__(self, level: Level, parameterisation: Parameterisation) -> Tensor:
        noise = parameterisation.noise_error(level.alpha, level.sigma) ** 2
        return squared_diffusion(level) * noise / level.sigma**2
