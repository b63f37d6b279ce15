"""Balls around points, as wide as to their k-th neighbours: what precision, recall and coverage count.

The set of real images is taken to be the union of the balls around them, each reaching to its centre's k-th
nearest neighbour (Kynkaanniemi et al. 2019); a generated image is like real ones if some ball holds it.
Density and coverage count the balls that hold an image, and whether a ball holds any (Naeem et al. 2020).

Both functions are exact, and fast by products of matrices. |a - b|^2 = |a|^2 + |b|^2 - 2 a.b, centred first,
is off by at most

    e = 4 (d + 8) u (|a|^2 + |b|^2),      u: unit roundoff, 2^-24 in float32

(summing d products in any order, centring, and the rounding of the distance itself), in practice by far less.
So products only say which pairs are worth a second look: the nearest k and some to spare, and pairs nearer to
a ball's surface than e. Those distances are taken again, from differences in float64, and rounded once.
Results depend on the points alone, not on tiles or on the matrix library.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from genbench.errors import UserError
from genbench.ops.neighbours import TILE, Euclidean, at_least_float32, neighbours
from genbench.ops.precision import exact

SPARE = 5
"""Neighbours looked at beyond the k-th, so that rounding cannot hide the k-th itself."""


class _Squares(Euclidean):
    """Squared distances by products of matrices; they order points as distances do, up to rounding."""

    def pairwise(self, a: Tensor, b: Tensor) -> Tensor:
        return torch.addmm(_squared_norm(b), a, b.T, alpha=-2).add_(_squared_norm(a)[:, None])


class Held(NamedTuple):
    """balls: int64 [N], how many hold each point; points: int64 [M], how many each ball holds."""

    balls: Tensor
    points: Tensor


@torch.no_grad()
def radii(x: Tensor, k: int, tile: int = TILE) -> Tensor:
    """The distance of each of x [N, d] to its k-th nearest other point, [N] in float32 or better.

    Points that coincide are neighbours at distance 0. UserError where there are no k others.
    """
    if not 1 <= k < len(x):
        raise UserError(
            f"the distance to neighbour {k} was asked for among {len(x)} points; expected 1 <= k < {len(x)}. "
            "Use more images, or a smaller k."
        )
    x = at_least_float32(x)
    found = x.new_empty(len(x))
    rows = torch.arange(len(x), device=x.device)
    for dtype in (x.dtype, torch.float64):
        found[rows], sure = _kth(x, rows, k, dtype, tile)
        rows = rows[~sure]
    for row in rows.tolist():  # many points equally far
        others = _apart(x[row].expand_as(x), x, tile)
        others[row] = torch.inf
        found[row] = others.kthvalue(k).values
    return found


@torch.no_grad()
def held(points: Tensor, centres: Tensor, radii: Tensor, tile: int = TILE) -> Held:
    """Which of `points` [N, d] lie in the balls around `centres` [M, d] of `radii` [M], surfaces included."""
    points, centres = at_least_float32(points), at_least_float32(centres)
    balls = torch.zeros(len(points), dtype=torch.int64, device=points.device)
    inside = torch.zeros(len(centres), dtype=torch.int64, device=points.device)
    with exact(points.device):
        origin = centres.mean(dim=0)
        for left in range(0, len(points), tile):
            rows = points[left : left + tile]
            for top in range(0, len(centres), tile):
                columns, reach = centres[top : top + tile], radii[top : top + tile]
                within = _within(rows, columns, reach, origin, tile)
                balls[left : left + tile] += within.sum(dim=1)
                inside[top : top + tile] += within.sum(dim=0)
    return Held(balls, inside)


def _kth(x: Tensor, rows: Tensor, k: int, dtype: torch.dtype, tile: int) -> tuple[Tensor, Tensor]:
    """(distances of x[rows] to their k-th others, whether that is sure) by products in `dtype`."""
    centred = (x - x.mean(dim=0)).to(dtype)
    count = min(k + 1 + SPARE, len(x))  # with the point itself
    with exact(x.device):
        nearest = neighbours(centred[rows], centred, count, _Squares(), tile)
    kept = torch.stack([_apart(x[rows], x[nearest[:, place]], tile) for place in range(count)], dim=1)
    kept = kept.masked_fill(nearest == rows[:, None], torch.inf).sort(dim=1).values
    found = kept[:, k - 1]
    # What was left out is at least as far as the furthest that was kept, but for two errors.
    furthest = kept.masked_fill(kept.isinf(), 0).amax(dim=1)
    norms = _squared_norm(centred)
    error = _share(centred) * (norms[rows] + norms.max())
    sure = (found == 0) | (found.to(dtype).square() <= furthest.to(dtype).square() - 2 * error)
    return found, sure | (count == len(x))


def _within(points: Tensor, centres: Tensor, radii: Tensor, origin: Tensor, tile: int) -> Tensor:
    """Whether point i is in ball j, bool [n, m], for one tile."""
    a, b = points - origin, centres - origin
    beyond = _Squares().pairwise(a, b) - radii.square()
    error = _share(a) * (_squared_norm(a)[:, None] + _squared_norm(b))
    within = beyond <= 0
    first, second = (beyond.abs() <= error).nonzero(as_tuple=True)
    for i, j in zip(first.split(tile), second.split(tile), strict=True):
        within[i, j] = _apart(points[i], centres[j], tile) <= radii[j]
    return within


def _apart(a: Tensor, b: Tensor, tile: int) -> Tensor:
    """Distances [N] of a [N, d] to b [N, d] from differences, rounded once, a tile of rows at a time."""
    pairs = zip(a.split(tile), b.split(tile), strict=True)
    return torch.cat([Euclidean().between(one.double(), other.double()) for one, other in pairs]).to(a.dtype)


def _squared_norm(x: Tensor) -> Tensor:
    return x.square().sum(dim=1)


def _share(x: Tensor) -> float:
    """e of the formula above as a share of |a|^2 + |b|^2."""
    return 4 * (x.shape[1] + 8) * torch.finfo(x.dtype).eps / 2
