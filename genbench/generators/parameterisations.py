"""What a network's output stands for, given x_t = alpha x0 + sigma eps.

    eps        the noise;                   x0 = (x_t - sigma out) / alpha
    x0         the image itself
    v          alpha eps - sigma x0 (Salimans & Ho 2022);   x0 = (alpha x_t - sigma out) / (alpha^2 + sigma^2)
    score      -eps / sigma (Song & Ermon 2019);            x0 = (x_t + sigma^2 out) / alpha
    velocity   eps - x0, of the straight path;              x0 = (x_t - sigma out) / (alpha + sigma)
    edm        D = c_skip y + c_out F(c_in y), y = x_t / alpha (Karras et al. 2022, eq. 7)

Each knows the target it is trained on, how to read x0 off an output, and what an error of the output is as an
error of the noise: losses in different parameterisations differ by known factors,
|eps - eps_hat|^2 = (alpha / sigma)^2 |x0 - x0_hat|^2.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from genbench.ops.combine import ONE, Combination, combine


class Parameterisation(ABC):
    """alpha and sigma are float64 of shape [] or [B]; tensors are [B, ...]."""

    @abstractmethod
    def target(self, x0: Tensor, noise: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        """What the network should output."""

    @abstractmethod
    def x0(self, output: Tensor, x_t: Tensor, alpha: Tensor, sigma: Tensor) -> Combination:
        """The estimate of x0 that an output means, not worked out yet."""

    @abstractmethod
    def noise_error(self, alpha: Tensor, sigma: Tensor) -> Tensor:
        """|eps - eps_hat| where the output is off by one."""

    def scale(self, alpha: Tensor, sigma: Tensor) -> Tensor | None:
        """What x_t is multiplied by before the network sees it; None for nothing."""
        return None


class Epsilon(Parameterisation):
    """The network predicts the noise (Ho et al. 2020)."""

    def target(self, x0: Tensor, noise: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        return noise

    def x0(self, output: Tensor, x_t: Tensor, alpha: Tensor, sigma: Tensor) -> Combination:
        return Combination((1 / alpha, -sigma / alpha), (x_t, output))

    def noise_error(self, alpha: Tensor, sigma: Tensor) -> Tensor:
        return torch.ones_like(sigma)


class X0(Parameterisation):
    """The network predicts the clean image."""

    def target(self, x0: Tensor, noise: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        return x0

    def x0(self, output: Tensor, x_t: Tensor, alpha: Tensor, sigma: Tensor) -> Combination:
        return Combination((ONE,), (output.to(x_t.dtype),))

    def noise_error(self, alpha: Tensor, sigma: Tensor) -> Tensor:
        return alpha / sigma


class V(Parameterisation):
    """The network predicts v (Salimans & Ho 2022, appendix D)."""

    def target(self, x0: Tensor, noise: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        return combine((-sigma, alpha), (x0, noise))

    def x0(self, output: Tensor, x_t: Tensor, alpha: Tensor, sigma: Tensor) -> Combination:
        power = alpha**2 + sigma**2
        return Combination((alpha / power, -sigma / power), (x_t, output))

    def noise_error(self, alpha: Tensor, sigma: Tensor) -> Tensor:
        return alpha / (alpha**2 + sigma**2)


class Score(Parameterisation):
    """The network predicts the score itself, as NCSN's does (Song & Ermon 2019)."""

    def target(self, x0: Tensor, noise: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        return combine((-1 / sigma,), (noise,))

    def x0(self, output: Tensor, x_t: Tensor, alpha: Tensor, sigma: Tensor) -> Combination:
        return Combination((1 / alpha, sigma**2 / alpha), (x_t, output))

    def noise_error(self, alpha: Tensor, sigma: Tensor) -> Tensor:
        return sigma


class Velocity(Parameterisation):
    """The network predicts eps - x0, dx/dt of the straight path (Liu et al. 2023; Lipman et al. 2023)."""

    def target(self, x0: Tensor, noise: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        return noise - x0

    def x0(self, output: Tensor, x_t: Tensor, alpha: Tensor, sigma: Tensor) -> Combination:
        total = alpha + sigma
        return Combination((1 / total, -sigma / total), (x_t, output))

    def noise_error(self, alpha: Tensor, sigma: Tensor) -> Tensor:
        return alpha / (alpha + sigma)


class EDM(Parameterisation):
    """The preconditioning of Karras et al. (2022, table 1): unit variance in and out at every noise level.

    data_std: sigma_data, the standard deviation of the images' pixels. With s = sigma / alpha,
    c_skip = d^2 / (s^2 + d^2), c_out = s d / sqrt(s^2 + d^2), c_in = 1 / sqrt(s^2 + d^2). The target
    (x0 - c_skip y) / c_out with weight one is their loss with lambda = 1 / c_out^2.
    """

    def __init__(self, data_std: float = 0.5) -> None:
        self.data_std = data_std

    def coefficients(self, alpha: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(c_skip, c_out, c_in), float64."""
        s, d = sigma / alpha, self.data_std
        power = s**2 + d**2
        return d**2 / power, s * d / power.sqrt(), power.rsqrt()

    def target(self, x0: Tensor, noise: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        skip, out, _ = self.coefficients(alpha, sigma)
        # y = x0 + s eps, so that no difference of large numbers is taken.
        return combine(((1 - skip) / out, -skip * sigma / alpha / out), (x0, noise))

    def x0(self, output: Tensor, x_t: Tensor, alpha: Tensor, sigma: Tensor) -> Combination:
        skip, out, _ = self.coefficients(alpha, sigma)
        return Combination((skip / alpha, out), (x_t, output))

    def noise_error(self, alpha: Tensor, sigma: Tensor) -> Tensor:
        return self.coefficients(alpha, sigma)[1] * alpha / sigma

    def scale(self, alpha: Tensor, sigma: Tensor) -> Tensor:
        return self.coefficients(alpha, sigma)[2] / alpha
