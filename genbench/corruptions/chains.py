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
from genbench.corruptions.tokens import CategoricalLaw, one_hot, probabilities, tokens, values
from genbench.ops.categorical import categorical
from genbench.ops.random import Randomness, Stream


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
        """q(x_t | x_s = k) for every level k, [B, ..., V], of tokens x_t [B, ...] and s < t."""

    def draw(self, shape: Sequence[int], randomness: Randomness) -> Tensor:
        return randomness.uniform(shape[1:], stream=Stream.NOISE)

    def apply(self, x0: Tensor, noise: Noise, t: Tensor) -> Tensor:
        law = self.forward(one_hot(tokens(x0, self.levels), self.levels), t)
        return values(categorical(law, noise), self.levels)

    def renoised(self, x_t: Tensor, x0: Posterior, s: Tensor, t: Tensor, fresh: float) -> CategoricalLaw:
        if fresh < 1:
            raise UserError(f"{type(self).__name__} cannot tell its noise from x_t. Type rule=fresh.")
        return CategoricalLaw(self.forward(probabilities(x0, self.levels), s))

    def bridge(self, x_t: Tensor, x0: Posterior, s: Tensor, t: Tensor) -> CategoricalLaw:
        """sum_x0 q(x_s | x_t, x0) p(x0 | x_t), the exact step where the posterior is."""
        at_t, given = tokens(x_t, self.levels), probabilities(x0, self.levels)
        reach = self.column(at_t, torch.zeros_like(t), t)
        # An x0 from which x_t cannot be reached has no posterior probability either. Below 1e-37, 1 / reach
        # may be infinite.
        weights = torch.where(reach > 0, given / reach.clamp(min=1e-37), 0.0)
        # Where no x0 is left, as after an unlikely draw, x_t is not asked: a law of zeros has no meaning.
        none = weights.sum(dim=-1, keepdim=True) == 0
        onward = torch.where(none, 1.0, self.column(at_t, s, t))
        return CategoricalLaw(self.forward(torch.where(none, given, weights), s) * onward)

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
        return self.steps * _divergence(true, _normal(made.probabilities))

    def prior(self, x0: Tensor) -> Tensor:
        """KL(q(x_1 | x0) || stationary), nats for every pixel."""
        one = torch.ones((), dtype=torch.float64)
        end = self.forward(one_hot(tokens(x0, self.levels), self.levels), one)
        return _divergence(_normal(end), self.stationary().to(end.device).expand_as(end))

    def terminal(self, shape: Sequence[int], randomness: Randomness, fitted: Fitted) -> Tensor:
        uniform = randomness.uniform(shape[1:], stream=Stream.TERMINAL)
        law = self.stationary().to(uniform.device).expand(*uniform.shape, self.levels)
        return values(categorical(law, uniform), self.levels)

    @abstractmethod
    def stationary(self) -> Tensor:
        """The law at t = 1 whatever x0 was, [V]."""


def _normal(p: Tensor) -> Tensor:
    return p / p.sum(dim=-1, keepdim=True).clamp(min=1e-30)


def _divergence(p: Tensor, q: Tensor) -> Tensor:
    """KL(p || q) over the last dimension; q is held above 1e-30."""
    return (torch.xlogy(p, p) - p * q.clamp(min=1e-30).log()).sum(dim=-1)


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
        kept = kept.to(like.device, torch.float32)
        return kept.reshape(kept.shape + (1,) * (like.ndim - kept.ndim)) if kept.ndim else kept

    def forward(self, p: Tensor, t: Tensor) -> Tensor:
        kept = self._kept(None, t, p)
        return kept * p + (1 - kept) * self.stationary().to(p.device) * p.sum(dim=-1, keepdim=True)

    def column(self, x_t: Tensor, s: Tensor, t: Tensor) -> Tensor:
        same = one_hot(x_t, self.levels)
        kept = self._kept(s, t, same)
        return kept * same + (1 - kept) * self.stationary().to(x_t.device)[x_t][..., None]


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

    steps: int

    def __init__(
        self, levels: int, steps: int = 1000, beta_start: float = 1e-4, beta_end: float = 0.02
    ) -> None:
        super().__init__(levels, steps)
        betas = torch.linspace(beta_start, beta_end, steps, dtype=torch.float64)
        self._scale = -4 / ((levels - 1) ** 2 * betas)
        reach = torch.arange(1 - levels, levels, dtype=torch.float64).square()
        self._norm = torch.exp(self._scale[:, None] * reach).sum(dim=1)
        grid = torch.arange(levels, dtype=torch.float64)
        self._squares = (grid[:, None] - grid).square()
        products = [torch.eye(levels, dtype=torch.float64)]
        for step in range(steps):
            products.append(products[-1] @ self._single(torch.tensor(step)))
        self._total = torch.stack([product.float() for product in products])
        """Qbar at i / T, float32 [T + 1, V, V]."""
        self._between: dict[tuple[int, int], Tensor] = {}

    def _single(self, step: Tensor) -> Tensor:
        """Q of a step 0 ... T - 1, [] or [B], float64 [V, V] or [B, V, V]."""
        scale, norm = (each[step][..., None, None] for each in (self._scale, self._norm))
        away = torch.exp(scale * self._squares) / norm
        away.diagonal(dim1=-2, dim2=-1).zero_()
        return away + torch.diag_embed(1 - away.sum(dim=-1))

    def _index(self, t: Tensor, device: torch.device) -> Tensor:
        """i of t = i / T, on the CPU; the tables it is for come to `device`: 256 levels' have 260 MB."""
        if self._total.device != device:
            tables = (self._scale, self._norm, self._squares, self._total)
            self._scale, self._norm, self._squares, self._total = (table.to(device) for table in tables)
            self._between = {}
        return (t * self.steps).round().long().cpu()

    def forward(self, p: Tensor, t: Tensor) -> Tensor:
        matrix = self._total[self._index(t, p.device)]
        return torch.matmul(p.flatten(1, -2), matrix).reshape(p.shape)

    def column(self, x_t: Tensor, s: Tensor, t: Tensor) -> Tensor:
        matrix = self._transition(self._index(s, x_t.device), self._index(t, x_t.device))
        # Row x_t of the transpose, which is column x_t.
        if matrix.ndim == 2:
            return matrix.T[x_t]
        flat = x_t.flatten(1)
        rows = torch.arange(len(flat), device=x_t.device)[:, None]
        return matrix.transpose(1, 2)[rows, flat].reshape(*x_t.shape, self.levels)

    def _transition(self, s: Tensor, t: Tensor) -> Tensor:
        """Q from s to t, [V, V] or [B, V, V]; of other pairs than neighbours and whole pasts, made once."""
        if bool((s == 0).all()):
            return self._total[t]
        if bool((t - s == 1).all()):
            return self._single(t - 1).float()
        if t.ndim:
            return torch.stack([self._transition(a, b) for a, b in zip(s.expand_as(t), t, strict=True)])
        key = int(s), int(t)
        if key not in self._between:
            product = torch.eye(self.levels, dtype=torch.float64, device=self._total.device)
            for step in range(*key):
                product = product @ self._single(torch.tensor(step))
            self._between[key] = product.float()
        return self._between[key]

    def stationary(self) -> Tensor:
        return torch.full((self.levels,), 1 / self.levels)
