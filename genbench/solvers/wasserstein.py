"""The distance that samples would have to be moved: sliced Wasserstein-1 from a set of vectors."""

from __future__ import annotations

import torch
from torch import Tensor

DIRECTIONS = 64
"""How many directions vectors of more than one dimension are looked at from."""


class SlicedWasserstein:
    """W1 of projections to one dimension, mean over fixed random directions; in the units of the data.

    reference: [M, ...]. Called with p [N, ...], where N divides M: sorted projections are matched in order,
    M / N of the reference to each of p, which is the best transport on a line (Rabin et al. 2012). In one
    dimension this is W1 itself. Raises ValueError for other sizes.
    """

    def __init__(self, reference: Tensor, directions: int = DIRECTIONS) -> None:
        flat = reference.double().flatten(1)
        generator = torch.Generator().manual_seed(0)
        count = directions if flat.shape[1] > 1 else 1
        axes = torch.randn(flat.shape[1], count, dtype=torch.float64, generator=generator)
        self._axes = (axes / axes.norm(dim=0)).to(flat.device)
        self._sorted = (flat @ self._axes).sort(dim=0).values

    def __call__(self, p: Tensor) -> float:
        n, m = len(p), len(self._sorted)
        if not n or m % n:
            raise ValueError(f"{n} vectors do not divide the {m} of the reference")
        projected = (p.double().flatten(1) @ self._axes).sort(dim=0).values
        return float((projected[:, None] - self._sorted.unflatten(0, (n, m // n))).abs().mean())
