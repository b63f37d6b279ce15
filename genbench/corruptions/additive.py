"""Corruption by any degradation of the image, with Gaussian noise of a known level added to it, or none.

    x_t = F_t(x_0) + sigma_t eps

Cold diffusion (Bansal et al. 2022), inverse heat dissipation (Rissanen et al. 2023) and a user's own
degradation are of this kind. Noise that is the same at all times cancels from the deterministic rule, which
is then cold diffusion's improved sampling,

    x_s = x_t + F_s(x0_hat) - F_t(x0_hat)

also in the limit of no noise (kexue.fm 9271).
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from genbench.contracts import Batch, Fitted, Law, Noise, Posterior, UserError
from genbench.corruptions.clock import Timed
from genbench.corruptions.gaussian import GaussianLaw
from genbench.corruptions.terminal import FittedNormal, Terminal
from genbench.ops.combine import combine
from genbench.ops.random import Randomness, Stream


class Additive(Timed):
    """A degradation of one's own: a subclass with `degrade`, and nothing else unless wanted.

    noise: standard deviation sigma_t at every t > 0, in units of images in [-1, 1]; ending: where sampling
    starts, a law fitted to degraded training images; steps: see `Timed`.
    """

    invertible_in_noise = True
    gaussian_noise = True

    def __init__(self, noise: float = 0.0, ending: Terminal | None = None, steps: int | None = None) -> None:
        super().__init__(steps)
        if noise < 0:
            raise UserError(f"corruption.noise={noise}: expected a standard deviation, 0 or more.")
        self.noise = noise
        self.ending = ending or FittedNormal()

    @abstractmethod
    def degrade(self, x0: Tensor, t: Tensor) -> Tensor:
        """F_t(x0) of images [B, C, H, W] at times float64 [] or [B]; x0 itself at t = 0."""

    def sigma(self, t: Tensor) -> Tensor:
        """The noise level, float64 of t's shape; none at t = 0."""
        return self.noise * (t > 0).double()

    def draw(self, shape: Sequence[int], randomness: Randomness) -> Tensor:
        return randomness.normal(shape[1:], stream=Stream.NOISE)

    def apply(self, x0: Tensor, noise: Noise, t: Tensor) -> Tensor:
        return combine((torch.ones_like(t), self.sigma(t)), (self.degrade(x0, t), noise))

    def renoised(self, x_t: Tensor, x0: Posterior, s: Tensor, t: Tensor, fresh: float) -> Law:
        before, after = self.sigma(t), self.sigma(s)
        # The limit of no noise at all: what F_t(x0_hat) leaves of x_t unexplained is kept as it is.
        ratio = torch.where(before > 0, after / before, torch.ones_like(before))
        kept = (1 - fresh**2) ** 0.5 * ratio
        terms = (x_t, self.degrade(x0.mean, s), self.degrade(x0.mean, t))
        return GaussianLaw((kept, torch.ones_like(kept), -kept), terms, fresh * after)

    def terminal(self, shape: Sequence[int], randomness: Randomness, fitted: Fitted) -> Tensor:
        start, one = self.ending.draw(shape, randomness, fitted), torch.ones((), dtype=torch.float64)
        noise = randomness.normal(shape[1:], stream=Stream.NOISE)
        return combine((one, self.sigma(one)), (start, noise))

    def fit(self, batches: Iterable[Batch], randomness: Randomness) -> Fitted:
        one = torch.ones((), dtype=torch.float64)
        return self.ending.fit(self.degrade(batch.images, one) for batch in batches)

    def placeholder(self, shape: Sequence[int]) -> Fitted:
        return self.ending.placeholder(shape)
