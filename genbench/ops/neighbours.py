"""Exact nearest neighbours, in tiles: memory grows with the tile, never with N times M.

A distance here is a norm of differences, and comes with the volume B_d of its unit ball in d dimensions,
which is what turns distances to neighbours into densities:

    Euclidean    ||a - b||_2          log B_d = (d / 2) log pi - log Gamma(d / 2 + 1)
    Maximum      max_j |a_j - b_j|    log B_d = d log 2

Distances are computed in float32 or better whatever the surroundings. They are sums of squared differences,
never |a|^2 + |b|^2 - 2 a.b, whose cancellation is largest between neighbours.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor

from genbench.errors import UserError

TILE = 1024
"""Rows by columns of one tile: 4 MiB of float32 distances."""


def at_least_float32(x: Tensor) -> Tensor:
    """`x` itself where it is float32 or float64, else as float32."""
    return x if x.dtype in (torch.float32, torch.float64) else x.float()


class Distance(ABC):
    """A norm of differences of points in d dimensions."""

    @abstractmethod
    def between(self, a: Tensor, b: Tensor) -> Tensor:
        """Distances [...] of a [..., d] to b [..., d], differentiable in both, float32 or better."""

    @abstractmethod
    def pairwise(self, a: Tensor, b: Tensor) -> Tensor:
        """Distances [n, m] of every point of a [n, d] to every one of b [m, d], float32 or better."""

    @abstractmethod
    def log_unit_ball(self, dimension: int) -> float:
        """log B_d: the logarithm of the volume of all points no further than 1 from the origin."""


class Euclidean(Distance):
    """||a - b||_2; its gradient at a = b is taken as 0."""

    def between(self, a: Tensor, b: Tensor) -> Tensor:
        return torch.linalg.vector_norm(at_least_float32(a) - at_least_float32(b), dim=-1)

    def pairwise(self, a: Tensor, b: Tensor) -> Tensor:
        return _pairwise(a, b, 2.0)

    def log_unit_ball(self, dimension: int) -> float:
        return dimension / 2 * math.log(math.pi) - math.lgamma(dimension / 2 + 1)


class Maximum(Distance):
    """max_j |a_j - b_j|; where several coordinates attain it they share the gradient evenly."""

    def between(self, a: Tensor, b: Tensor) -> Tensor:
        return (at_least_float32(a) - at_least_float32(b)).abs().amax(dim=-1)

    def pairwise(self, a: Tensor, b: Tensor) -> Tensor:
        return _pairwise(a, b, math.inf)

    def log_unit_ball(self, dimension: int) -> float:
        return dimension * math.log(2)


def _pairwise(a: Tensor, b: Tensor, power: float) -> Tensor:
    with torch.autocast(a.device.type, enabled=False):
        return torch.cdist(
            at_least_float32(a),
            at_least_float32(b),
            p=power,
            compute_mode="donot_use_mm_for_euclid_dist",
        )


@torch.no_grad()
def neighbours(x: Tensor, y: Tensor, k: int, distance: Distance, tile: int = TILE) -> Tensor:
    """The k points of y [M, d] nearest to each of x [N, d], nearest first: positions in y, int64 [N, k].

    Where y is x itself (the same tensor, not a copy), no point is its own neighbour; points that merely
    coincide are neighbours at distance 0. Of points equally far, any may be named. No gradient is recorded.
    Raises UserError where y has fewer than k points to offer.
    """
    own = y is x
    if k < 1 or len(y) - own < k:
        raise UserError(
            f"{k} nearest neighbours were asked for among {len(y)} points"
            f"{', of which each excludes itself' if own else ''}; expected 1 <= k <= {len(y) - own}. "
            "Ask for fewer, or use a larger batch."
        )
    best = [_Nearest(rows, k) for rows in x.split(tile)]
    for row, a in enumerate(x.split(tile)):
        for column, b in enumerate(y.split(tile)):
            if own and column < row:
                continue  # the same distances as of (column, row)
            distances = distance.pairwise(a, b)
            if own and column == row:
                distances.fill_diagonal_(math.inf)
            best[row].see(distances, tile * column)
            if own and column > row:
                best[column].see(distances.T, tile * row)
    return torch.cat([each.index for each in best])


class _Nearest:
    """The k nearest so far to each of n points: distances, and positions int64, both [n, up to k]."""

    def __init__(self, points: Tensor, k: int) -> None:
        self.k = k
        self.distances = at_least_float32(points).new_empty(len(points), 0)
        self.index = torch.empty(len(points), 0, dtype=torch.int64, device=points.device)

    def see(self, distances: Tensor, first: int) -> None:
        """Distances [n, m] to the m points from position `first` on."""
        count = min(self.k, distances.shape[1])
        distances, places = distances.topk(count, dim=1, largest=False)
        together = torch.cat([self.distances, distances], dim=1)
        index = torch.cat([self.index, places + first], dim=1)
        self.distances, order = together.topk(min(self.k, together.shape[1]), dim=1, largest=False)
        self.index = index.gather(1, order)
