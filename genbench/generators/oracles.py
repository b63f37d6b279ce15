"""Denoisers known in closed form, as drop-in models: samplers are tested on them without any training."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from genbench.contracts import Generator, Phase, Posterior
from genbench.corruptions.gaussian import Gaussian
from genbench.ops.combine import combine, expand


class GaussianOracle(Generator):
    """The exact denoiser of data N(mean, std^2 I) under a Gaussian corruption.

        E[x0 | x_t] = mean + g (x_t - alpha mean),   g = alpha std^2 / (alpha^2 std^2 + sigma^2)

    and the posterior's variance per pixel is std^2 sigma^2 / (alpha^2 std^2 + sigma^2). The output has the
    dtype of x_t, so that orders of convergence can be measured in float64.
    """

    def __init__(
        self, corruption: Gaussian, image_shape: Sequence[int], mean: float = 0.0, std: float = 1.0
    ) -> None:
        super().__init__()
        self.corruption = corruption
        channels, height, width = image_shape
        self.image_shape = (channels, height, width)
        self.data_mean = mean
        self.data_std = std

    def phases(self) -> Sequence[Phase]:
        """Nothing is trained."""
        return []

    def denoise(self, x_t: Tensor, t: Tensor, labels: Tensor | None = None) -> Posterior:
        alpha, sigma = self.corruption.alpha(t), self.corruption.sigma(t)
        power = alpha**2 * self.data_std**2 + sigma**2
        gain = alpha * self.data_std**2 / power
        mean = combine((gain,), (x_t - expand(alpha, x_t) * self.data_mean,)) + self.data_mean
        return Posterior(mean, variance=expand(self.data_std**2 * sigma**2 / power, x_t))
