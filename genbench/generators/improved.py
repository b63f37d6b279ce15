"""Improved DDPM (Nichol & Dhariwal 2021): the variance of the reverse step is learned beside its mean.

    L_hybrid = L_simple + w T L_t,      L_t = the variational bound's term at t, in bits per dimension

The network's second half of channels, out, says v = (out + 1) / 2: where between beta~ and beta the step's
log-variance lies (eq. 15). In L_t the mean is held still (stop-gradient): only the variance learns from it.
Their w is .001, which their code writes as T / 1000; the full bound alone is L_hybrid without L_simple.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from genbench.contracts import Batch, Losses, Posterior, Step
from genbench.corruptions.gaussian_rules import LearnedVariance
from genbench.generators.denoising import Denoising
from genbench.likelihood.bound import step_bits


class Improved(Denoising):
    """A `Denoising` generator whose network has twice the channels out.

    levels: grey levels of the data, for the first term (its images are not dequantised); bound_weight: w T
    above, 1 for T = 1000; simple: whether L_simple is part of the loss.
    """

    def __init__(
        self, *args: Any, levels: int, bound_weight: float = 1.0, simple: bool = True, **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        self.data_levels = levels
        self.bound_weight = bound_weight
        self.simple = simple

    def loss(self, batch: Batch, step: Step) -> Losses:
        """L_hybrid; logs both parts."""
        trial = self.corrupted(batch)
        mean, share = trial.output.chunk(2, dim=1)
        simple = (mean - trial.target).square().mean()
        level = trial.level
        still = self.parameterisation.x0(mean.detach(), trial.x_t, level.alpha, level.sigma)
        posterior = Posterior(still, share=(share + 1) / 2)
        bits = step_bits(
            self.corruption, trial.x0, trial.x_t, level.t, posterior, LearnedVariance(), self.data_levels
        )
        bound = bits.mean().float()
        total = self.bound_weight * bound + (simple if self.simple else 0.0)
        return Losses(total, {"simple": simple, "bound": bound})

    def denoise(self, x_t: Tensor, t: Tensor, labels: Tensor | None = None) -> Posterior:
        mean, share = self._evaluate(x_t, t, labels).to(x_t.dtype).chunk(2, dim=1)
        alpha, sigma = self.corruption.alpha(t), self.corruption.sigma(t)
        return Posterior(self.parameterisation.x0(mean, x_t, alpha, sigma), share=(share + 1) / 2)
