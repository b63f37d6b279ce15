"""Markov chains over the grey levels of each pixel (D3PM, Austin et al. 2021).

    q(x_t | x_0) = Cat(x_0 Qbar_t),     q(x_s | x_t, x_0) = x_0 Qbar_s * Q_{s..t} x_t' / (x_0 Qbar_t x_t')

Rows of matrices are where a chain comes from. An image of tokens is an image (see `tokens`).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor

from genbench.contracts import Fitted, Noise, Posterior, Rule, UserError
from genbench.corruptions.clock import Timed
from genbench.corruptions.resampling import UNREACHED, ResampledStep
from genbench.corruptions.tokens import (
    CategoricalLaw,
    drawn_alike,
    one_hot,
    probabilities,
    raised,
    tokens,
    values,
)
from genbench.corruptions.transitions import Transitions
from genbench.ops.categorical import categorical
from genbench.ops.combine import expand
from genbench.ops.random import Randomness, Stream

FLOOR = 1e-30
"""Added to what a model thinks impossible, so that the divergence from it is finite."""


class Discrete(Timed):
    """A corruption of images whose pixels are one of V grey levels; levels: V."""

    def __init__(self, levels: int, steps: int | None = None) -> None:
        super().__init__(steps)
        if levels < 2:
            raise UserError(f"corruption.levels={levels}: expected 2 grey levels or more.")
        self.levels = levels


class Chain(Discrete):
    """A Markov chain, the same for every pixel."""

    bridges = True

    @abstractmethod
    def forward(self, p: Tensor, t: Tensor) -> Tensor:
        """p Qbar_t of laws p [B, ..., V] of x0 at t [] or [B]."""

    @abstractmethod
    def column(self, x_t: Tensor, s: Tensor, t: Tensor) -> Tensor:
        """q(x_t | x_s = k) for every level k, [B, ..., V], of tokens x_t [B, ...] and s < t.

        A tensor of its own, which may be written over, and so is `likelihood`.
        """

    def marginal(self, x0: Tensor, t: Tensor) -> Tensor:
        """q(x_t = k | x_0) for every level k, [B, ..., V], of tokens x0 [B, ...]."""
        return self.forward(one_hot(x0, self.levels), t)

    def likelihood(self, x_t: Tensor, t: Tensor) -> Tensor:
        """q(x_t | x_0 = k) for every level k, [B, ..., V], of tokens x_t [B, ...]."""
        return self.column(x_t, torch.zeros_like(t), t)

    def draw(self, shape: Sequence[int], randomness: Randomness) -> Tensor:
        return randomness.uniform(shape[1:], stream=Stream.NOISE)

    def apply(self, x0: Tensor, noise: Noise, t: Tensor) -> Tensor:
        law = self.marginal(tokens(x0, self.levels), t)
        return values(categorical(law, noise), self.levels)

    def renoised(self, x_t: Tensor, x0: Posterior, s: Tensor, t: Tensor, fresh: float) -> CategoricalLaw:
        if fresh < 1:
            raise UserError("This corruption cannot tell its noise from x_t. Type rule=bridge or rule=fresh.")
        if x0.logits is None:
            return CategoricalLaw(self.marginal(tokens(x0.mean, self.levels), s))
        return CategoricalLaw(self.forward(probabilities(x0, self.levels), s))

    def bridge(self, x_t: Tensor, x0: Posterior, s: Tensor, t: Tensor) -> CategoricalLaw:
        """sum_x0 q(x_s | x_t, x0) p(x0 | x_t), the exact step where the posterior is."""
        at_t = tokens(x_t, self.levels)
        # Where no x0 is left, as after an unlikely draw, x_t is not asked: a law of zeros has no meaning.
        if x0.logits is None:
            at_0 = tokens(x0.mean, self.levels)
            none = self.marginal(at_0, t).gather(-1, at_t[..., None]) == 0
            onward = self.column(at_t, s, t).masked_fill_(none, 1.0)
            return CategoricalLaw(onward.mul_(self.marginal(at_0, s)))
        # An x0 from which x_t cannot be reached has no posterior probability either, and what is left is a
        # law: of sharp estimates that are wrong too little would be left to divide by.
        inverse = self.likelihood(at_t, t)
        far = inverse < UNREACHED
        none = x0.logits.detach().masked_fill(far, -torch.inf).amax(dim=-1, keepdim=True) == -torch.inf
        inverse.reciprocal_().masked_fill_(far, 0.0).masked_fill_(none, 1.0)
        given = x0.logits.masked_fill(far & ~none, -torch.inf).softmax(dim=-1)
        law = self.forward(given * inverse, s)
        return CategoricalLaw(law * self.column(at_t, s, t).masked_fill_(none, 1.0))

    def joint(self, x_t: Tensor, x0: Posterior, s: Tensor, t: Tensor) -> CategoricalLaw:
        """sum_x0 q(x_s, x_t | x0) p(x0 | x_t), as published (eq. 4); no law of x_s given x_t in general."""
        onward = self.column(tokens(x_t, self.levels), s, t)
        return CategoricalLaw(self.forward(probabilities(x0, self.levels), s) * onward)

    def check_bound(self) -> None:
        """Raises UserError where there is no `bound`."""
        if self.steps is None:
            raise UserError("The bound of a chain is a sum over discrete times. Type corruption.steps=1000.")

    def bound(self, x0: Tensor, x0_hat: Posterior, x_t: Tensor, t: Tensor, rule: Rule) -> Tensor:
        """T KL(q(x_s | x_t, x0) || p(x_s | x_t)), s = t - 1/T, nats for every pixel; p: `rule` at x0_hat.

        Its mean over times and trajectories, with `prior`, is a bound of -log p(x0). At s = 0 it is T times
        the cross-entropy.
        """
        assert self.steps is not None
        s = (t - 1 / self.steps).clamp(min=0)
        true = _normal(self.bridge(x_t, Posterior(x0), s, t).probabilities)
        made = rule.law(self, x_t, x0_hat, s, t)
        assert isinstance(made, CategoricalLaw)
        # Of a law made here and now, in place.
        return self.steps * _divergence(true, made.probabilities.add_(FLOOR))

    def prior(self, x0: Tensor) -> Tensor:
        """KL(q(x_1 | x0) || stationary), nats for every pixel."""
        one = torch.ones((), dtype=torch.float64)
        end = self.marginal(tokens(x0, self.levels), one)
        return _divergence(_normal(end), (self._stationary(end.device) + FLOOR).expand_as(end))

    def terminal(self, shape: Sequence[int], randomness: Randomness, fitted: Fitted) -> Tensor:
        uniform = randomness.uniform(shape[1:], stream=Stream.TERMINAL)
        return values(drawn_alike(self._stationary(uniform.device), uniform), self.levels)

    @abstractmethod
    def stationary(self) -> Tensor:
        """The law at t = 1 whatever x0 was, [V]."""

    def _stationary(self, device: torch.device) -> Tensor:
        """`stationary` on a device, which is not waited for."""
        return self.stationary().to(device, non_blocking=True)


def _normal(p: Tensor) -> Tensor:
    return p / p.sum(dim=-1, keepdim=True).clamp(min=1e-30)


def _divergence(p: Tensor, q: Tensor) -> Tensor:
    """KL(p || q) over the last dimension, of a law p and q above 0 of any sum."""
    # Differences of logarithms: a quotient's gradient is divided by the square of a sum, which may be 0.
    crossed = q.sum(dim=-1).log() - q.log().mul_(p).sum(dim=-1)
    return crossed - torch.special.entr(p).sum(dim=-1)


class Keep(ABC):
    """The probability that a token has not been touched by time t."""

    @abstractmethod
    def __call__(self, t: Tensor) -> Tensor:
        """In [0, 1], float64 of t's shape, 1 at t = 0."""


class LinearKeep(Keep):
    """1 - t: beta_t = 1 / (T - t + 1) in D3PM's notation."""

    def __call__(self, t: Tensor) -> Tensor:
        return 1 - t.double()


class CosineKeep(Keep):
    """cos((t + o) / (1 + o) pi / 2) over its value at 0, not squared (Austin et al. 2021); o: `offset`."""

    def __init__(self, offset: float = 0.008) -> None:
        self.offset = offset

    def _angle(self, t: Tensor) -> Tensor:
        return (t.double() + self.offset) / (1 + self.offset) * (math.pi / 2)

    def __call__(self, t: Tensor) -> Tensor:
        start = math.cos(self.offset / (1 + self.offset) * math.pi / 2)
        return (torch.cos(self._angle(t)) / start).clamp(0, 1)


class Resampled(Chain):
    """Tokens stay with probability `keep`(t), and are otherwise drawn from `stationary`."""

    def __init__(self, levels: int, keep: Keep, steps: int | None = None) -> None:
        super().__init__(levels, steps)
        self.keep = keep

    def _kept(self, s: Tensor | None, t: Tensor, like: Tensor) -> Tensor:
        kept = self.keep(t)
        if s is not None:
            before = self.keep(s)
            kept = torch.where(before > 0, kept / before, torch.zeros_like(kept))
        return expand(kept, like)

    def forward(self, p: Tensor, t: Tensor) -> Tensor:
        kept = self._kept(None, t, p)
        # In place, which these products allow: p is as large as memory will have it.
        drawn = (1 - kept) * self._stationary(p.device)
        return (kept * p).addcmul_(drawn, p.sum(dim=-1, keepdim=True))

    def marginal(self, x0: Tensor, t: Tensor) -> Tensor:
        law = self._stationary(x0.device).expand(*x0.shape, self.levels)
        kept = self._kept(None, t, law)
        return _raised((1 - kept) * law, x0, kept)

    def column(self, x_t: Tensor, s: Tensor, t: Tensor) -> Tensor:
        law = self._stationary(x_t.device)[x_t][..., None]
        kept = self._kept(s, t, law)
        return _raised(((1 - kept) * law).repeat_interleave(self.levels, dim=-1), x_t, kept)

    def bridge(self, x_t: Tensor, x0: Posterior, s: Tensor, t: Tensor) -> CategoricalLaw:
        at_t, stationary = tokens(x_t, self.levels)[..., None], self._stationary(x_t.device)
        own = stationary[at_t]
        a, b, k = self._kept(None, t, own), self._kept(None, s, own), self._kept(s, t, own)
        step = ResampledStep(stationary, at_t, own, a, b, k)
        if x0.logits is None:
            return CategoricalLaw(step.known(tokens(x0.mean, self.levels)[..., None]))
        return CategoricalLaw(step.estimated(x0.logits))

    def apply(self, x0: Tensor, noise: Noise, t: Tensor) -> Tensor:
        # What is above the chance of being kept is, scaled, as good a uniform number, and no law is needed.
        kept = expand(self.keep(t), noise.double())
        drawn = drawn_alike(self._stationary(noise.device), (noise - kept) / (1 - kept))
        return values(torch.where(noise < kept, tokens(x0, self.levels), drawn), self.levels)


def _raised(law: Tensor, x: Tensor, kept: Tensor) -> Tensor:
    """`law` [B, ..., V] with `kept` more at each token of x [B, ...], in place."""
    return raised(law, x, kept.expand(*x.shape, 1)[..., 0])


class Uniform(Resampled):
    """A touched token is any level, all as likely."""

    def stationary(self) -> Tensor:
        return torch.full((self.levels,), 1 / self.levels)


class Absorbing(Resampled):
    """A touched token is the middle grey level, V // 2, for good."""

    def stationary(self) -> Tensor:
        return one_hot(torch.tensor(self.levels // 2), self.levels)

    def known(self, x_t: Tensor) -> Tensor:
        # What was drawn from a model's estimate of these would be of another image.
        return tokens(x_t, self.levels) != self.levels // 2


class DiscretisedGaussian(Chain):
    """Steps to level j from i in proportion to exp(-4 (i - j)^2 / ((V - 1)^2 beta)), betas linear in time.

    The proportion is to the sum over all differences, so that Q is symmetric and doubly stochastic; what is
    missing in a row stays (Austin et al. 2021, eq. 8 of appendix A).
    """

    def __init__(
        self, levels: int, steps: int | None = 1000, beta_start: float = 1e-4, beta_end: float = 0.02
    ) -> None:
        super().__init__(levels, steps)
        if steps is None:
            raise UserError("Gaussian chains have discrete times. Type corruption.steps=1000.")
        self.transitions = Transitions(
            levels, torch.linspace(beta_start, beta_end, steps, dtype=torch.float64)
        )

    def _index(self, t: Tensor) -> Tensor:
        """i of t = i / T."""
        return (t * self.transitions.steps).round().long()

    def forward(self, p: Tensor, t: Tensor) -> Tensor:
        matrix = self.transitions.past(self._index(t), p.device)
        return torch.matmul(p.flatten(1, -2), matrix).reshape(p.shape)

    def marginal(self, x0: Tensor, t: Tensor) -> Tensor:
        return _rows(self.transitions.past(self._index(t), x0.device), x0)

    def likelihood(self, x_t: Tensor, t: Tensor) -> Tensor:
        return _rows(self.transitions.past(self._index(t), x_t.device).mT, x_t)

    def column(self, x_t: Tensor, s: Tensor, t: Tensor) -> Tensor:
        """See `Chain`; times of each image are to be one step apart where they lie on a GPU."""
        return _rows(self._between(self._index(s), self._index(t), x_t.device).mT, x_t)

    def _between(self, first: Tensor, last: Tensor, device: torch.device) -> Tensor:
        if not last.ndim:
            return self.transitions.between(int(first), int(last), device)
        apart = last - first != 1
        # Training must not wait for the device that it feeds, and takes single steps.
        if last.is_cpu and bool(apart.any()):
            pairs = zip(first.expand_as(last).tolist(), last.tolist(), strict=True)
            return torch.stack([self.transitions.between(i, j, device) for i, j in pairs])
        torch._assert_async(~apart.any(), "times of a batch of images must be one step apart")
        return self.transitions.step(last, device)

    def stationary(self) -> Tensor:
        return torch.full((self.levels,), 1 / self.levels)


def _rows(matrix: Tensor, x: Tensor) -> Tensor:
    """Row x of a matrix [V, V] for all images or [B, V, V] one for each, [B, ..., V] of tokens x [B, ...]."""
    matrix = matrix.contiguous()  # copied of a transpose, whose rows are scattered in memory
    if matrix.ndim == 2:
        return matrix[x]
    flat = x.flatten(1)
    images = torch.arange(len(flat), device=x.device)[:, None]
    return matrix[images, flat].reshape(*x.shape, -1)
