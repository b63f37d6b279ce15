"""Time grids: the descending times a sampler visits, from where it starts to t = 0.

A grid is called with the number of steps and the corruption's T (None where time is continuous) and returns
float64 [steps + 1], the last being 0. Discrete grids follow DDIM's code: 0-based indices tau_1 < ... < tau_S
of {0 ... T - 1}, visited from the last, index tau standing for time (tau + 1) / T.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from genbench.contracts import UserError


class Grid(Protocol):
    """A choice of times; raises UserError where the steps do not fit the corruption."""

    def __call__(self, steps: int, total: int | None) -> Tensor:
        """Descending times, float64 [steps + 1], ending at 0."""


def _from_indices(indices: Tensor, total: int) -> Tensor:
    times = (indices.flip(0).double() + 1) / total
    return torch.cat((times, torch.zeros(1, dtype=torch.float64)))


def _check(steps: int, total: int | None) -> None:
    if steps < 1:
        raise UserError(f"sampler.steps={steps}: at least 1 step is needed.")
    if total is not None and steps > total:
        raise UserError(
            f"sampler.steps={steps}, but the model knows {total} times. Type sampler.steps={total} or fewer."
        )


class Uniform:
    """Evenly spaced times; of a discrete schedule the indices floor(i T / S), i = 0 ... S - 1.

    Where S divides T this is DDIM's `range(0, T, T // S)`; elsewhere that would give more than S steps.
    """

    def __call__(self, steps: int, total: int | None) -> Tensor:
        _check(steps, total)
        if total is None:
            return torch.linspace(1, 0, steps + 1, dtype=torch.float64)
        return _from_indices(torch.arange(steps) * total // steps, total)


class Quadratic:
    """Times denser near the data: indices floor(linspace(0, sqrt(0.8 T), S)^2), DDIM's choice for CIFAR-10.

    The grid never goes above 0.8 T; sampling still starts from N(0, I). For S >= 50 of T = 1000 index 0
    repeats, and a repeated time is a step that changes nothing. In continuous time: (0.8 i^2 / S^2).
    """

    def __call__(self, steps: int, total: int | None) -> Tensor:
        _check(steps, total)
        if total is None:
            return 0.8 * torch.linspace(1, 0, steps + 1, dtype=torch.float64) ** 2
        roots = torch.linspace(0, (0.8 * total) ** 0.5, steps, dtype=torch.float64)
        # 800 = sqrt(800)^2 must not fall to 799 by a rounding.
        return _from_indices((roots**2 + 1e-9).floor().long(), total)
