"""Correction rules of Gaussian corruption: steps of DDPM, DDIM, reverse-time equations.

Every rule here is linear, x_s = k x_t + c x0_hat + std z with z ~ N(0, I). Most choose how much of the noise
survives, as two standard deviations in

    x_s = alpha_s x0_hat + sqrt(sigma_s^2 - replaced^2) eps_hat + added z

Where `added` equals `replaced` the marginal law of x_s is kept (condition (*) of the unified diffusion
model, kexue.fm 9262); DDPM's large variance is the one that adds more than it replaces. The others are
discretisations of the reverse-time family of equations

    dx = (u - v^2 score / 2) dt + v dw,    u = alpha' x0_hat + sigma' eps_hat,    v >= 0

with any noise v(t): v = 0 is the probability-flow ODE, v = g the reverse SDE (kexue.fm 9228; Song et al.
2021, eq. 6 and 13), where g^2 = 2 sigma sigma' - 2 (alpha' / alpha) sigma^2 and score = -eps_hat / sigma.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from genbench.contracts import Law, Level, Posterior, Rule, UserError
from genbench.corruptions.gaussian import Linear
from genbench.ops.combine import expand

Coefficients = tuple[Tensor, Tensor, Tensor]
"""Of x_t and of the estimate in a step, and the standard deviation of its noise: [], [B], or per pixel."""


class GaussianRule(Rule):
    """A rule that is linear in x_t, the estimate and fresh noise."""

    def check(self, corruption: Any, s: Tensor, t: Tensor) -> None:
        if not isinstance(corruption, Linear):
            raise UserError(
                "The rule of this sampler is a step of Gaussian corruption, which this model's is not. Type "
                "sampler=restore rule=fresh, or sampler=restore alone for the rule that suits the corruption."
            )
        unknown = torch.zeros(1, 1, 1, 1)
        x0 = Posterior(unknown, variance=unknown, share=unknown)
        step = self.coefficients(corruption.level(s), corruption.level(t), x0)
        if not all(bool(each.isfinite().all()) for each in step):
            raise UserError(
                "The first step of this sampler is not finite: this corruption leaves nothing of the data at "
                "its first time. Type grid.start=0.999."
            )

    @abstractmethod
    def coefficients(self, s: Level, t: Level, x0: Posterior) -> Coefficients:
        """(k, c, std) of x_s = k x_t + c x0_hat + std z, z ~ N(0, I), for s < t."""

    def law(self, corruption: Linear, x_t: Tensor, x0: Posterior, s: Tensor, t: Tensor) -> Law:
        kept, estimate, std = self.coefficients(corruption.level(s), corruption.level(t), x0)
        return corruption.step((kept, estimate), (x_t, x0.estimate), std)


class Splitting(GaussianRule, ABC):
    """A rule that says how the standard deviation at the target time is split."""

    @abstractmethod
    def split(self, sigma_s: Tensor, sigma_t: Tensor, sigma_ts: Tensor) -> tuple[Tensor, Tensor]:
        """(std replaced by fresh noise in the mean's coefficients, std of the noise added).

        sigma_s, sigma_t are the noise levels at s < t, sigma_ts that of the transition from s to t.
        """

    def coefficients(self, s: Level, t: Level, x0: Posterior) -> Coefficients:
        replaced, added = self.split(s.sigma, t.sigma, transition(s, t))
        return *s.keeping(t, replaced), added


def transition(s: Level, t: Level) -> Tensor:
    """sigma_ts, where sigma_ts^2 = sigma_t^2 - (alpha_t / alpha_s)^2 sigma_s^2."""
    # Rounding must not make a variance negative where s = t (a repeated grid time is a no-op).
    return (t.sigma**2 - (t.alpha / s.alpha) ** 2 * s.sigma**2).clamp(min=0).sqrt()


def squared_diffusion(t: Level) -> Tensor:
    """g^2 of the forward equation dx = (alpha' / alpha) x dt + g dw."""
    return 2 * t.sigma * t.sigma_rate - 2 * t.alpha_rate / t.alpha * t.sigma**2


def unless_last(s: Level, std: Tensor) -> Tensor:
    """`std`, or nothing where s is the data itself: the last step ends at its mean."""
    return torch.where(s.sigma > 0, std, torch.zeros_like(std))


@dataclass(frozen=True)
class Eta(Splitting):
    """DDIM's family (Song, Meng & Ermon 2020, eq. 16), written for any Gaussian corruption.

    eta = 1 has the variance of the true posterior given x0, which is DDPM's small variance and the ancestral
    step of Song et al. (2021); eta = 0 is deterministic.
    """

    eta: float

    def split(self, sigma_s: Tensor, sigma_t: Tensor, sigma_ts: Tensor) -> tuple[Tensor, Tensor]:
        fresh = self.eta * sigma_s * sigma_ts / sigma_t
        return fresh, fresh


@dataclass(frozen=True)
class LargeVariance(Splitting):
    """DDPM's "fixedlarge" (Ho et al. 2020, section 3.2): the posterior's mean with variance beta_t.

    beta is optimal for data that are N(0, I), the posterior's variance for a single point. The last step
    (sigma_s = 0) adds nothing.
    """

    def split(self, sigma_s: Tensor, sigma_t: Tensor, sigma_ts: Tensor) -> tuple[Tensor, Tensor]:
        return sigma_s * sigma_ts / sigma_t, torch.where(sigma_s > 0, sigma_ts, torch.zeros_like(sigma_ts))


@dataclass(frozen=True)
class Spread(GaussianRule):
    """A rule whose noise also covers what the estimate does not know (Bao et al. 2022; kexue.fm 9245).

    p(x_s | x_t) = int p(x_s | x_t, x0) p(x0 | x_t) dx0 has the variance added^2 + c^2 Var[x0 | x_t], with c
    the estimate's coefficient. Needs a posterior that knows its variance. last: whether the step to s = 0,
    all of whose noise is the estimate's, adds it too; exact for Gaussian data, visible noise in images.
    """

    rule: Splitting
    last: bool = False

    def coefficients(self, s: Level, t: Level, x0: Posterior) -> Coefficients:
        kept, estimate, added = self.rule.coefficients(s, t, x0)
        if x0.variance is None:
            raise ValueError("the rule Spread was given an estimate of unknown variance")
        variance = x0.variance.double()
        std = (expand(added, variance) ** 2 + expand(estimate, variance) ** 2 * variance).sqrt()
        return kept, estimate, std if self.last else torch.where(expand(s.sigma, std) > 0, std, 0.0)


@dataclass(frozen=True)
class LearnedVariance(GaussianRule):
    """Improved DDPM (Nichol & Dhariwal 2021, eq. 15): the model says where between beta~ and beta to be.

    variance = exp(v log sigma_ts^2 + (1 - v) log beta~), v being the posterior's `share`, per pixel; it
    belongs to the step, and is no variance of x0.
    """

    def check_estimate(self, x0: Posterior) -> None:
        super().check_estimate(x0)
        if x0.share is None:
            raise UserError(
                "This model has learned no variance of its steps. Type model=iddpm or sampler=ancestral."
            )

    def coefficients(self, s: Level, t: Level, x0: Posterior) -> Coefficients:
        if x0.share is None:
            raise ValueError("the rule LearnedVariance was given an estimate without a learned share")
        large = transition(s, t)
        small = s.sigma * large / t.sigma
        kept, estimate = s.keeping(t, small)
        share = x0.share.double()
        # log beta~ of the last step is -inf; its noise is left out, and must not reach a gradient as NaN.
        high, low = (expand(level.clamp(min=1e-12).log(), share) for level in (large, small))
        std = (share * high + (1 - share) * low).exp()
        return kept, estimate, std * (expand(s.sigma, std) > 0)


@dataclass(frozen=True)
class EulerMaruyama(GaussianRule):
    """One Euler step of the reverse-time family in t; `noise` is v as a multiple of g.

    noise = 1 is the reverse SDE, 0 the Euler step of the probability-flow ODE, and anything else a member of
    the family with the same marginals. The step to the data itself ends at the estimate: where sigma grows
    like the root of t, a step in t would leave half the noise.
    """

    noise: float = 1.0

    def coefficients(self, s: Level, t: Level, x0: Posterior) -> Coefficients:
        dt = t.t - s.t
        fade = t.sigma_rate / t.sigma  # of the noise; u = fade x_t + (alpha' - fade alpha) x0_hat
        # Where nothing of the data is left (flow at t = 1) g is infinite, and the ODE alone is defined.
        square = self.noise**2 * squared_diffusion(t)
        pull = 0.5 * square / t.sigma**2 if self.noise else torch.zeros_like(fade)
        kept = 1 - dt * (fade + pull)
        estimate = dt * ((fade + pull) * t.alpha - t.alpha_rate)
        std = (square.clamp(min=0) * dt).sqrt() if self.noise else torch.zeros_like(fade)
        last = s.sigma == 0
        return (
            torch.where(last, torch.zeros_like(kept), kept),
            torch.where(last, s.alpha, estimate),
            unless_last(s, std),
        )


@dataclass(frozen=True)
class ReverseDiffusion(GaussianRule):
    """The reverse SDE discretised as the forward one was (Song et al. 2021, eq. 46).

    x_s = (2 - alpha_t / alpha_s) x_t + sigma_ts^2 score + sigma_ts z. The last step ends at its mean.
    """

    def coefficients(self, s: Level, t: Level, x0: Posterior) -> Coefficients:
        step = transition(s, t)
        pull = (step / t.sigma) ** 2
        return 2 - t.alpha / s.alpha - pull, pull * t.alpha, unless_last(s, step)
