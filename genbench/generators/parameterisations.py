"""What a network's output stands for, given x_t = alpha x0 + sigma eps.

    eps:  the noise;          x0 = (x_t - sigma eps) / alpha
    x0:   the image itself
    v:    alpha eps - sigma x0 (Salimans & Ho 2022);   x0 = (alpha x_t - sigma v) / (alpha^2 + sigma^2)

Each knows the target it is trained on and how to read x0 off an output; losses in different
parameterisations differ by known factors: |eps - eps_hat|^2 = (alpha / sigma)^2 |x0 - x0_hat|^2.
"""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

from genbench.ops.combine import combine


class Parameterisation(Protocol):
    """alpha and sigma are float64 of shape [] or [B]; tensors are [B, ...]."""

    def target(self, x0: Tensor, noise: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        """What the network should output."""

    def x0(self, output: Tensor, x_t: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        """The estimate of x0 that an output means."""


class Epsilon:
    """The network predicts the noise (Ho et al. 2020)."""

    def target(self, x0: Tensor, noise: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        return noise

    def x0(self, output: Tensor, x_t: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        return combine((1 / alpha, -sigma / alpha), (x_t, output))


class X0:
    """The network predicts the clean image."""

    def target(self, x0: Tensor, noise: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        return x0

    def x0(self, output: Tensor, x_t: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        return output


class V:
    """The network predicts the velocity (Salimans & Ho 2022, appendix D)."""

    def target(self, x0: Tensor, noise: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        return combine((-sigma, alpha), (x0, noise))

    def x0(self, output: Tensor, x_t: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        power = alpha**2 + sigma**2
        return combine((alpha / power, -sigma / power), (x_t, output))
