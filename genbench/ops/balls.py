"""Balls around points, as wide as to their k-th neighbours: what precision, recall and coverage count.

The set of real images is taken to be the union of the balls around them, each reaching to its centre's k-th
nearest neighbour (Kynkaanniemi et al. 2019); a generated image is like real ones if some ball holds it.
Density and coverage count the balls that hold an image, and whether a ball holds any (Naeem et al. 2020).

All functions are exact, and fast by products of matrices, of which none is computed twice: distances within
a set are symmetric, and those between two sets say both who is in whose balls.

    |a - b|^2 = |a|^2 + |b|^2 - 2 a.b

centred first, is off by at most

    e = 4 (d + 8) u (|a|^2 + |b|^2),      u: unit roundoff, 2^-24 in float32

(summing d products in any order, centring, and the rounding of the distance itself), in practice by far less.
So products only say which pairs are worth a second look: the nearest k and some to spare, and pairs nearer to
a ball's surface than e. Those distances are taken again, from differences in float64, and rounded once.
Results depend on the points alone, not on tiles or on the matrix library.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from genbench.errors import UserError
from genbench.ops.neighbours import TILE, Euclidean, at_least_float32, neighbours
from genbench.ops.precision import exact

SPARE = 3
"""Neighbours looked at beyond the k-th, so that rounding cannot hide the k-th itself."""
CACHED = 2**16
"""Numbers in float64 that are worked on at a time, half a MiB: differences stay in a core's cache."""


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
    everything = torch.arange(len(x), device=x.device)
    for row in rows.tolist():  # many points equally far
        others = _apart(x, everything.new_full((len(x),), row), x, everything)
        others[row] = torch.inf
        found[row] = others.kthvalue(k).values
    return found


@torch.no_grad()
def held(points: Tensor, centres: Tensor, radii: Tensor, tile: int = TILE) -> Held:
    """Which of `points` [N, d] lie in the balls around `centres` [M, d] of `radii` [M], surfaces included."""
    points, centres = at_least_float32(points), at_least_float32(centres)
    found = Held(_zeros(points), _zeros(centres))
    for part in _parts(points, centres, tile):
        part.add_to(found, radii[None, part.columns])
    return found


@torch.no_grad()
def held_by_each_other(
    a: Tensor, a_radii: Tensor, b: Tensor, b_radii: Tensor, tile: int = TILE
) -> tuple[Held, Held]:
    """(a [N, d] in the balls around b [M, d], b in the balls around a): `held` both ways at one's price."""
    a, b = at_least_float32(a), at_least_float32(b)
    of_a, of_b = Held(_zeros(a), _zeros(b)), Held(_zeros(b), _zeros(a))
    for part in _parts(a, b, tile):
        part.add_to(of_a, b_radii[None, part.columns])
        part.add_to(Held(of_b.points, of_b.balls), a_radii[part.rows, None])
    return of_a, of_b


class _Part(NamedTuple):
    """One tile of all pairs: slices of a and b, squared distances [n, m] and by how much they may be off."""

    a: Tensor
    b: Tensor
    rows: slice
    columns: slice
    squares: Tensor
    error: Tensor

    def add_to(self, found: Held, reach: Tensor) -> None:
        """Adds the pairs no further apart than `reach`, [n, 1] or [1, m], by row and by column."""
        beyond = self.squares - reach.square()
        within = beyond <= 0
        i, j = (beyond.abs_() <= self.error).nonzero(as_tuple=True)
        apart = _apart(self.a, i + self.rows.start, self.b, j + self.columns.start)
        within[i, j] = apart <= reach.expand_as(within)[i, j]
        found.balls[self.rows] += within.sum(dim=1)
        found.points[self.columns] += within.sum(dim=0)


def _parts(a: Tensor, b: Tensor, tile: int) -> Iterator[_Part]:
    origin = b.mean(dim=0)
    for left in range(0, len(a), tile):
        for top in range(0, len(b), tile):
            rows, columns = slice(left, left + tile), slice(top, top + tile)
            near, far = a[rows] - origin, b[columns] - origin
            with exact(a.device):
                squares = _Squares().pairwise(near, far)
            error = _share(near) * (_squared_norm(near)[:, None] + _squared_norm(far))
            yield _Part(a, b, rows, columns, squares, error)


def _kth(x: Tensor, rows: Tensor, k: int, dtype: torch.dtype, tile: int) -> tuple[Tensor, Tensor]:
    """(distances of x[rows] to their k-th others, whether that is sure) by products in `dtype`."""
    centred = (x - x.mean(dim=0)).to(dtype)
    whole = len(rows) == len(x)
    # Of all points at once neighbours are others; of some, they are among all, with the point itself.
    count = min(k + SPARE, len(x) - 1) if whole else min(k + 1 + SPARE, len(x))
    with exact(x.device):
        nearest = neighbours(centred if whole else centred[rows], centred, count, _Squares(), tile)
    kept = _apart(x, rows.repeat_interleave(count), x, nearest.flatten()).reshape(nearest.shape)
    kept = kept.masked_fill(nearest == rows[:, None], torch.inf).sort(dim=1).values
    found = kept[:, k - 1]
    # What was left out is at least as far as the furthest that was kept, but for two errors.
    furthest = kept.masked_fill(kept.isinf(), 0).amax(dim=1)
    norms = _squared_norm(centred)
    error = _share(centred) * (norms[rows] + norms.max())
    sure = (found == 0) | (found.to(dtype).square() <= furthest.to(dtype).square() - 2 * error)
    return found, sure | (count == len(x) - whole)


def _apart(a: Tensor, i: Tensor, b: Tensor, j: Tensor) -> Tensor:
    """Distances [n] of a[i] to b[j], int64 [n] each, from differences in float64, rounded once."""
    size = max(1, CACHED // max(1, a.shape[1]))
    parts = zip(i.split(size), j.split(size), strict=True)
    found = [torch.linalg.vector_norm(a[one].double().sub_(b[other]), dim=1) for one, other in parts]
    return torch.cat(found).to(a.dtype)


def _zeros(points: Tensor) -> Tensor:
    return torch.zeros(len(points), dtype=torch.int64, device=points.device)


def _squared_norm(x: Tensor) -> Tensor:
    return torch.linalg.vector_norm(x, dim=1).square()


def _share(x: Tensor) -> float:
    """e of the formula above as a share of |a|^2 + |b|^2."""
    return 4 * (x.shape[1] + 8) * torch.finfo(x.dtype).eps / 2
