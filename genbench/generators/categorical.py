"""Estimates of categorical pixels: a law over the V grey levels of every pixel.

    L = E_{t, x0, noise} [ c cross-entropy + b bound ],      each a mean over the pixels, in nats

The cross-entropy -log q(x0 | x_t) is unified diffusion's loss (kexue.fm 9262); the bound is the corruption's
share of -log p(x0) at t. b = 1, c = .001 is D3PM's hybrid (Austin et al. 2021, eq. 5), b = 1, c = 0 MD4's.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from genbench.contracts import Corruption, Losses, Posterior, Rule, UserError
from genbench.corruptions.rules import Bridge
from genbench.corruptions.tokens import expectation, one_hot, tokens, values
from genbench.generators.estimators import Estimator, Trial
from genbench.likelihood.categorical import Bounds

CERTAIN = 1e4
"""The logit by which a level is certain; finite, so that no product of it is NaN."""


class Head(ABC):
    """How a network's output is read as logits; levels: V."""

    def __init__(self, levels: int) -> None:
        self.levels = levels

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
        return logits + one_hot(tokens(x_t, self.levels), self.levels) if self.residual else logits


class Logistic(Head):
    """Grey levels cut out of a logistic distribution, truncated to [-1, 1] (Austin et al. 2021, app. B).

    The output has a channel for the mean, tanh(x_t + m), and one for the log of the scale, for every channel.
    """

    def __call__(self, output: Tensor, x_t: Tensor) -> Tensor:
        shift, log_scale = output.float().chunk(2, dim=1)
        mean = torch.tanh(x_t.clamp(-1, 1) + shift)[..., None]
        # Beyond e^30 all is at one level, below e^-30 all levels are alike, and further on there is infinity.
        sharpness = torch.exp((2 - log_scale).clamp(-30, 30))[..., None]
        half = 1 / (self.levels - 1)
        centres = values(torch.arange(self.levels, device=output.device), self.levels)
        upper, lower = sharpness * (centres + half - mean), sharpness * (centres - half - mean)
        # log(s(u) - s(l)) = log s(u) + log s(-l) + log(1 - e^(l - u)), exact in both tails.
        return F.logsigmoid(upper) + F.logsigmoid(-lower) + torch.log(-torch.expm1(-2 * half * sharpness))


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
                f"estimator.bound={self.bound}: {type(corruption).__name__} has no bound of the likelihood. "
                "Type estimator.bound=0 estimator.cross_entropy=1."
            )
        corruption.check_bound()

    def loss(self, trial: Trial, corruption: Any) -> Losses:
        logits = self._logits(trial.output, trial.x_t, corruption)
        levels = self.head.levels
        log_q = logits.log_softmax(dim=-1)
        nats = -log_q.gather(-1, tokens(trial.x0, levels)[..., None])
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
        logits = self.head(output.float(), x_t)
        known = corruption.known(x_t)
        if known is None:
            return logits
        certain = CERTAIN * one_hot(tokens(x_t, self.head.levels), self.head.levels)
        return torch.where(known[..., None], certain, logits)
