"""Denoisers known in closed form, as drop-in models: samplers are tested on them without any training.

    Gaussian   N(mean, std^2 I)             E[x0 | x_t] is affine in x_t
    mixture    sum_k w_k N(mu_k, c_k^2 I)   the Gaussian's answers, weighted by responsibilities
    data set   the mixture with c_k = 0     E[x0 | x_t] = sum_i r_i x_i

The last is what every denoising loss on a finite data set is minimised by.
Outputs have the dtype of x_t, so that orders of convergence can be measured in float64.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from genbench.contracts import Generator, Phase, Posterior, UserError
from genbench.corruptions.gaussian import Gaussian
from genbench.ops.combine import combine, expand
from genbench.ops.random import Randomness, Stream

Values = Tensor | Sequence[Any]


class Oracle(Generator):
    """An exact denoiser of a law that can be drawn from. Nothing of it is trained."""

    corruption: Gaussian

    def phases(self) -> Sequence[Phase]:
        """Nothing is trained."""
        return []

    @abstractmethod
    def denoise(self, x_t: Tensor, t: Tensor, labels: Tensor | None = None) -> Posterior:
        """The exact posterior's mean and variance per pixel; see `Denoises`."""

    @abstractmethod
    def sample(self, randomness: Randomness) -> Tensor:
        """Exact draws of x0, one [C, H, W] for every key, float64."""


class GaussianOracle(Oracle):
    """The exact denoiser of data N(mean, std^2 I) under a Gaussian corruption.

        E[x0 | x_t] = mean + g (x_t - alpha mean),   g = alpha std^2 / (alpha^2 std^2 + sigma^2)

    and the posterior's variance per pixel is std^2 sigma^2 / (alpha^2 std^2 + sigma^2).
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

    def sample(self, randomness: Randomness) -> Tensor:
        return self.data_mean + self.data_std * randomness.normal(self.image_shape).double()

    def denoise(self, x_t: Tensor, t: Tensor, labels: Tensor | None = None) -> Posterior:
        alpha, sigma = self.corruption.alpha(t), self.corruption.sigma(t)
        power = alpha**2 * self.data_std**2 + sigma**2
        gain = alpha * self.data_std**2 / power
        mean = combine((gain,), (x_t - expand(alpha, x_t) * self.data_mean,)) + self.data_mean
        return Posterior(mean, variance=expand(self.data_std**2 * sigma**2 / power, x_t))


class MixtureOracle(Oracle):
    """The exact denoiser of a mixture of K isotropic Gaussians.

    means: [K, C, H, W]; stds, weights: [K], weights positive (they are divided by their sum); tensors or
    nested lists. A component of std 0 is a point. image_shape: [C, H, W] that means of fewer pixels, such as
    [K, 1, 1, 1], are repeated to. Raises UserError where the counts differ.
    """

    data_means: Tensor
    data_stds: Tensor
    log_weights: Tensor

    def __init__(
        self,
        corruption: Gaussian,
        means: Values,
        stds: Values,
        weights: Values,
        image_shape: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        means, stds, weights = (torch.as_tensor(given).double() for given in (means, stds, weights))
        counted = len(means) == len(stds) == len(weights) and means.ndim == 4
        if not counted or bool((weights <= 0).any() or (stds < 0).any()):
            raise UserError(
                "a mixture needs means [K, C, H, W], stds [K] from 0 up, positive weights [K]; found shapes "
                f"{tuple(means.shape)}, {tuple(stds.shape)} and {tuple(weights.shape)}"
            )
        if image_shape is not None:
            means = means.expand(len(means), *image_shape)
        self.corruption = corruption
        channels, height, width = means.shape[1:]
        self.image_shape = (channels, height, width)
        self.register_buffer("data_means", means.contiguous())
        self.register_buffer("data_stds", stds)
        self.register_buffer("log_weights", (weights / weights.sum()).log())

    def sample(self, randomness: Randomness) -> Tensor:
        ends = self.log_weights.exp().cumsum(0)
        chosen = torch.bucketize(randomness.uniform((), stream=Stream.LABEL).double(), ends)
        chosen = chosen.clamp(max=len(ends) - 1)  # the last end may round to less than 1
        noise = randomness.normal(self.image_shape).double()
        return self.data_means[chosen] + expand(self.data_stds[chosen], noise) * noise

    def denoise(self, x_t: Tensor, t: Tensor, labels: Tensor | None = None) -> Posterior:
        flat, means = x_t.double().flatten(1), self.data_means.flatten(1)
        alpha, sigma = (level(t).reshape(-1, 1) for level in (self.corruption.alpha, self.corruption.sigma))
        power = alpha**2 * self.data_stds**2 + sigma**2  # [B or 1, K]
        # |x - alpha mu|^2 by its terms would cancel; K differences are formed instead.
        away = flat[:, None] - alpha[..., None] * means  # [B, K, D]
        log_density = -0.5 * away.square().sum(-1) / power - 0.5 * means.shape[1] * power.log()
        shares = torch.softmax(self.log_weights + log_density, dim=1)
        gain = alpha * self.data_stds**2 / power
        centres = means + gain[..., None] * away
        mean = (shares[..., None] * centres).sum(1)
        inner = (shares * self.data_stds**2 * sigma**2 / power).sum(1, keepdim=True)
        outer = (shares[..., None] * (centres - mean[:, None]).square()).sum(1)
        return Posterior(
            mean.reshape(x_t.shape).to(x_t.dtype), variance=(inner + outer).reshape(x_t.shape).to(x_t.dtype)
        )


class DataOracle(MixtureOracle):
    """The exact denoiser of a finite data set [N, C, H, W] in [-1, 1], every image as likely."""

    def __init__(self, corruption: Gaussian, images: Tensor) -> None:
        super().__init__(corruption, images, torch.zeros(len(images)), torch.ones(len(images)))
