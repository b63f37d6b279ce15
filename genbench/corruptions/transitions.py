"""The steps of discretised Gaussian chains (Austin et al. 2021, eq. 8 of appendix A) and their products.

    Q_t(i, j) = exp(-4 (i - j)^2 / ((V - 1)^2 beta_t)) / Z_t  for i != j,    Qbar_t = Q_1 Q_2 ... Q_t

Z_t is the sum over all differences -(V - 1) ... V - 1, so that Q_t is symmetric and doubly stochastic; what
is missing in a row stays. Steps of different beta do not commute: Qbar_t is doubly stochastic too, but not
symmetric.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class Transitions:
    """Of V = `levels` grey levels and the variances `betas` [T], float64.

    Products are made in float64 and rounded once. Tables move to where they are asked for and have
    4 (T + 1) V^2 bytes (262 MB of 256 levels and 1,000 steps); copies of a model share them.
    """

    def __init__(self, levels: int, betas: Tensor) -> None:
        self.levels, self.steps = levels, len(betas)
        differences = torch.arange(levels, dtype=torch.float64)
        self._difference = (differences[:, None] - differences).abs().long()
        weights = torch.exp(-4 / ((levels - 1) ** 2 * betas[:, None]) * differences.square())
        self._away = weights / (2 * weights.sum(dim=1, keepdim=True) - 1)
        """By the difference, float64 [T, V]."""
        self._away[:, 0] = 0
        # From level i there are i levels below and V - 1 - i above.
        below = self._away.cumsum(dim=1)
        self._stay = 1 - below - below.flip(1)
        """The diagonals, float64 [T, V]."""
        self._pasts = torch.empty(self.steps + 1, levels, levels)
        product = torch.eye(levels, dtype=torch.float64)
        self._pasts[0] = product
        for step in range(self.steps):
            product = product @ self._step(step)
            self._pasts[step + 1] = product
        self._between: dict[tuple[int, int, torch.device], Tensor] = {}

    def __deepcopy__(self, memo: dict[int, Any]) -> Transitions:
        # Nothing here is learnt, or changes but by being made.
        return self

    def _step(self, step: int | Tensor, dtype: torch.dtype = torch.float64) -> Tensor:
        """Q of steps 0 ... T - 1, [..., V, V]."""
        away, stay = (table[step].to(dtype) for table in (self._away, self._stay))
        return away[..., self._difference] + torch.diag_embed(stay)

    def _bring(self, device: torch.device) -> None:
        if self._pasts.device != device:
            for name in ("_difference", "_away", "_stay", "_pasts"):
                setattr(self, name, getattr(self, name).to(device))

    def past(self, index: Tensor, device: torch.device) -> Tensor:
        """Qbar at times index / T, float32 [V, V] or [B, V, V] on `device`."""
        self._bring(device)
        return self._pasts[index]

    def step(self, index: Tensor, device: torch.device) -> Tensor:
        """Q of the step that ends at index / T, of [B] times: float32 [B, V, V]."""
        self._bring(device)
        return self._step(index - 1, torch.float32)

    def between(self, first: int, last: int, device: torch.device) -> Tensor:
        """The product of the steps from one time to another, float32 [V, V]; made once."""
        self._bring(device)
        if first == 0:
            return self._pasts[last]
        key = first, last, device
        if key not in self._between:
            product = self._step(first)
            for step in range(first + 1, last):
                product = product @ self._step(step)
            self._between[key] = product.float()
        return self._between[key]
