"""Estimates of categorical pixels: a law over the V grey levels of every pixel.

    L = E_{t, x0, noise} [ c cross-entropy + b bound ],      each a mean over the pixels, in nats

The cross-entropy -log q(x0 | x_t) is unified diffusion's loss (kexue.fm 9262); the bound is the corruption's
share of -log p(x0) at t. b = 1, c = .001 is D3PM's hybrid (Austin et al. 2021, eq. 5), b = 1, c = 0 MD4's.
"""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from genbench.contracts import Corruption, Losses, Posterior, Rule, UserError
from genbench.corruptions.rules import Bridge
from genbench.corruptions.tokens import expectation, raised, surprise, tokens
from genbench.generators.estimators import Estimator, Trial
from genbench.likelihood.categorical import Bounds

CERTAIN = 1e4
"""The logit by which a level is certain; finite, so that no product of it is NaN."""


class Head(ABC):
    """How a network's output is read as logits; levels: V."""

    def __init__(self, levels: int) -> None:
        self.levels = levels

    def shown(self, x_t: Tensor) -> Tensor:
        """Where x_t is one of the levels and not, as what a mask hides, below all of them."""
        return x_t > -1 - 1 / (self.levels - 1)

    @abstractmethod
    def __call__(self, output: Tensor, x_t: Tensor) -> Tensor:
        """[B, C, H, W, V] of an output [B, ..., H, W] for x_t [B, C, H, W]."""


class Logits(Head):
    """V channels for every channel; residual: x_t's own level starts one ahead, as in D3PM."""

    def __init__(self, levels: int, residual: bool = False) -> None:
        super().__init__(levels)
        self.residual = residual

    def __call__(self, output: Tensor, x_t: Tensor) -> Tensor:
        logits = output.unflatten(1, (self.levels, -1)).movedim(1, -1)
        if not self.residual:
            return logits
        own = logits.clone(memory_format=torch.contiguous_format)
        return raised(own, tokens(x_t, self.levels), self.shown(x_t).to(logits.dtype))


class Logistic(Head):
    """Grey levels cut out of a logistic distribution, truncated to [-1, 1] (Austin et al. 2021, app. B).

        p(v) ~ s((v + h - mu) / S) - s((v - h - mu) / S),     h = 1 / (V - 1), half of a level

    The output has a channel for the mean, mu = tanh(x_t + m), and one for log S + 2, for every channel.
    """

    def __call__(self, output: Tensor, x_t: Tensor) -> Tensor:
        shift, log_scale = output.chunk(2, dim=1)
        return self.cut(self.seen(x_t) + shift, log_scale)

    def seen(self, x_t: Tensor) -> Tensor:
        """What means start from; what is hidden is of no level, and the middle is near to all."""
        return torch.where(self.shown(x_t), x_t.clamp(-1, 1), 0.0)

    def cut(self, middle: Tensor, log_scale: Tensor) -> Tensor:
        """log of the mass of each level, [..., V], not summing to 1; mu = tanh(middle)."""
        # What lies between has several times the memory of the result, and is made anew for the gradient.
        return checkpoint(self._cut, middle, log_scale, use_reentrant=False, preserve_rng_state=False)

    def _cut(self, middle: Tensor, log_scale: Tensor) -> Tensor:
        # Beyond e^30 all is at one level, below e^-30 all levels are alike, and further on there is infinity.
        sharpness = torch.exp((2 - log_scale).clamp(-30, 30))[..., None]
        half = 1 / (self.levels - 1)
        centres = torch.arange(self.levels, dtype=torch.float64, device=middle.device) * (2 * half) - 1
        away = sharpness * (centres.to(middle.dtype) - torch.tanh(middle)[..., None])
        # log(s(u) - s(l)) = log s(u) + log s(-l) + log(1 - e^(l - u)), exact in both tails.
        tails = F.logsigmoid(away + half * sharpness) + F.logsigmoid(half * sharpness - away)
        return tails + torch.log(-torch.expm1(-2 * half * sharpness))


class LogisticMixture(Logistic):
    """Grey levels cut out of a mixture of K = `components` logistics (Salimans et al. 2017, eq. 2).

    The output has, for every channel, K shifts m, K scales as `Logistic` has one, and K logits of the shares.
    """

    def __init__(self, levels: int, components: int) -> None:
        super().__init__(levels)
        if components < 2:
            raise UserError(
                f"estimator.head.components={components}: expected 2 or more. Type estimator=d3pm_logistic."
            )
        self.components = components

    def __call__(self, output: Tensor, x_t: Tensor) -> Tensor:
        shifts, log_scales, shares = output.unflatten(1, (3, self.components, -1)).unbind(dim=1)
        # Of an output of zeros, as of many networks at first, equal components would stay so for ever.
        starts = torch.linspace(-1, 1, self.components, device=x_t.device)[:, None, None, None]
        middles = self.seen(x_t)[:, None] + shifts + starts
        masses = map(self.cut, middles.unbind(dim=1), log_scales.unbind(dim=1))
        parts = zip(masses, shares.log_softmax(dim=1).unbind(dim=1), strict=True)
        return functools.reduce(torch.logaddexp, (mass + share[..., None] for mass, share in parts))


class Categorical(Estimator):
    """head: how the output is read; cross_entropy, bound: c and b above; rule: of the bound's steps."""

    def __init__(
        self, head: Head, cross_entropy: float = 1.0, bound: float = 0.0, rule: Rule | None = None
    ) -> None:
        self.head = head
        self.cross_entropy, self.bound = cross_entropy, bound
        self.rule = rule or Bridge()

    def check(self, corruption: Corruption) -> None:
        if not self.bound:
            return
        if not isinstance(corruption, Bounds):
            raise UserError(
                f"estimator.bound={self.bound:g}: this model's loss is a bound of the likelihood, and this "
                "corruption has none. Type model=udm and no estimator, or a corruption of grey levels: "
                "absorbing, uniform or gaussian_discrete with model=d3pm, mask_independent with model=md4."
            )
        corruption.check_bound()

    def loss(self, trial: Trial, corruption: Any) -> Losses:
        logits = self._logits(trial.output, trial.x_t, corruption)
        with torch.set_grad_enabled(torch.is_grad_enabled() and bool(self.cross_entropy)):
            nats = surprise(logits, tokens(trial.x0, self.head.levels))
        parts = {"cross_entropy": nats.mean()}
        total = self.cross_entropy * parts["cross_entropy"]
        if self.bound:
            posterior = Posterior(trial.x_t, logits=logits)
            parts["bound"] = corruption.bound(trial.x0, posterior, trial.x_t, trial.t, self.rule).mean()
            total = total + self.bound * parts["bound"]
        return Losses(total, parts)

    def posterior(self, output: Tensor, x_t: Tensor, t: Tensor, corruption: Corruption) -> Posterior:
        logits = self._logits(output, x_t, corruption)
        return Posterior(expectation(logits).to(x_t.dtype), logits=logits)

    def _logits(self, output: Tensor, x_t: Tensor, corruption: Corruption) -> Tensor:
        wide = torch.promote_types(output.dtype, torch.float32)
        logits = self.head(output.to(wide), x_t)
        known = corruption.known(x_t)
        if known is None:
            return logits
        hidden = logits.masked_fill(known[..., None], 0.0)
        return raised(hidden, tokens(x_t, self.head.levels), CERTAIN * known.to(logits.dtype))
