"""The variational bound of a diffusion model of discrete times (Ho et al. 2020, eq. 5), term by term.

    L_T = KL(q(x_T | x0) || p(x_T))
    L_t = KL(q(x_s | x_t, x0) || p(x_s | x_t))      for t = 2/T ... 1 and s = t - 1/T
    L_0 = -log P(x0 | x_1)                          grey levels cut out of a Gaussian

q(x_s | x_t, x0) is the posterior with variance beta~, and the model's own step has the mean that its estimate
gives and a variance of its rule. A level k of V owns the cell of width 2 / (V - 1) around it, the first and
the last all that lies beyond. Each term is divided by log 2 and the number of dimensions.

As in Ho et al.'s code and Nichol and Dhariwal's, the model's estimate is held to [-1, 1], as by its samplers.
It matters where a step takes nearly all that is left of the image: a mean square error of d in eps costs
about d / (2 (1 - beta_t)) nats unclipped, and the cosine schedule ends with 1 - beta_t = 1/1000.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from genbench.contracts import Posterior, UserError
from genbench.corruptions.gaussian import Gaussian, GaussianLaw
from genbench.corruptions.gaussian_rules import Eta, GaussianRule
from genbench.ops.combine import expand
from genbench.ops.random import Randomness
from genbench.samplers.guidance import Clip, threshold


def gaussian_kl(mean: Tensor, std: Tensor, other_mean: Tensor, other_std: Tensor) -> Tensor:
    """KL(N(mean, std^2) || N(other_mean, other_std^2)) elementwise, in nats."""
    ratio = std / other_std
    return 0.5 * (ratio.square() + ((mean - other_mean) / other_std).square() - 1) - ratio.log()


def level_log_likelihood(x0: Tensor, mean: Tensor, std: Tensor, levels: int) -> Tensor:
    """log P(x0) elementwise, in nats, of levels 2 k / (V - 1) - 1 cut out of N(mean, std^2)."""
    half = 1 / (levels - 1)
    above, below = (x0 + half - mean) / std, (x0 - half - mean) / std
    # Far from the mean both ends round to the same cdf; log-differences of the nearer tail keep their digits.
    flip = below > 0
    high, low = torch.where(flip, -below, above), torch.where(flip, -above, below)
    log_high, log_low = torch.special.log_ndtr(high), torch.special.log_ndtr(low)
    inside = log_high + torch.log(-torch.expm1((log_low - log_high).clamp(max=-1e-12)))
    first, last = x0 < -1 + half, x0 > 1 - half
    inside = torch.where(first, torch.special.log_ndtr(above), inside)
    return torch.where(last, torch.special.log_ndtr(-below), inside)


def step_bits(
    corruption: Gaussian,
    x0: Tensor,
    x_t: Tensor,
    t: Tensor,
    posterior: Posterior,
    rule: GaussianRule,
    levels: int,
) -> Tensor:
    """L_t / (D log 2), or L_0's at t = 1/T, [B] in float64, for images x0 [B, ...] and times t [B].

    The model's step is `rule` at `posterior`; its standard deviation at t = 1/T, where a sampler adds no
    noise, is that of the next time up, as in Ho et al.'s code.
    """
    assert corruption.steps is not None
    s = (t - 1 / corruption.steps).clamp(min=0)
    first = t * corruption.steps < 1.5
    # Ho et al. clip log beta~_1, which is -inf, to that of the second step.
    noisy_s, noisy_t = (
        torch.where(first, torch.full_like(t, k / corruption.steps), v) for k, v in ((1, s), (2, t))
    )

    def step(rule: GaussianRule, x0_hat: Posterior, s: Tensor, t: Tensor) -> GaussianLaw:
        law = rule.law(corruption, x_t, x0_hat, s, t)
        assert isinstance(law, GaussianLaw)
        return law

    true, made = step(Eta(1.0), Posterior(x0), s, t), step(rule, posterior, s, t)
    mean, std = _moments(true, step(Eta(1.0), Posterior(x0), noisy_s, noisy_t).std)
    spare = step(rule, posterior, noisy_s, noisy_t).std
    made_mean, made_std = _moments(made, torch.where(made.std > 0, made.std, spare))
    kl = gaussian_kl(mean, std, made_mean, made_std)
    decoder = -level_log_likelihood(x0.double(), made_mean, made_std, levels)
    nats = torch.where(expand(first, kl.bool()), decoder, kl)
    return nats.flatten(1).mean(dim=1) / math.log(2)


def _moments(law: GaussianLaw, std: Tensor) -> tuple[Tensor, Tensor]:
    mean = law.mean.double()
    return mean, expand(std, mean).expand_as(mean)


class BoundLikelihood:
    """Bits per dimension of all T terms: T evaluations an image.

    rule: the variance of the model's steps; clip: what holds its x0_hat in [-1, 1]; both as in sampling.
    """

    name = "bpd_bound"

    def __init__(self, rule: GaussianRule, clip: Clip = True) -> None:
        self.rule = rule
        self.hold = threshold(clip)

    def check(self, model: Any) -> None:
        """Raises UserError where the model's times are not discrete or its corruption not Gaussian."""
        corruption = getattr(model, "corruption", None)
        if not isinstance(corruption, Gaussian) or corruption.steps is None:
            raise UserError(
                "the variational bound is a sum over discrete times of a Gaussian corruption, and this model "
                "has none. Type likelihood=ode."
            )

    def __call__(self, model: Any, images: Tensor, levels: int, randomness: Randomness) -> Tensor:
        """The bound in bits per dimension, float64 [B], of images [B, C, H, W] at their grey levels."""
        corruption = model.corruption
        count = corruption.steps
        one = torch.ones(len(images), dtype=torch.float64, device=images.device)
        alpha, sigma = (expand(level(one), images.double()) for level in (corruption.alpha, corruption.sigma))
        prior = gaussian_kl(
            alpha * images.double(),
            sigma,
            torch.zeros_like(sigma),
            torch.full_like(sigma, corruption.schedule.terminal_std),
        )
        total = prior.flatten(1).mean(dim=1) / math.log(2)
        for number in range(1, count + 1):
            t = one * (number / count)
            x_t = corruption.apply(images, randomness.normal(images.shape[1:], number), t)
            posterior = model.denoise(x_t, t)
            posterior = replace(posterior, estimate=self.hold(posterior.estimate))
            total += step_bits(corruption, images, x_t, t, posterior, self.rule, levels)
        return total
