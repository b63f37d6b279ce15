"""The Fréchet distance of infinitely many samples, extrapolated from finite ones.

    E FD(n samples) = FD_infinity + c / n + O(1 / n^2)

(Chong and Forsyth 2020): c depends on the model, so that ranks by FD at one n need not be ranks of models.
The samples, in a fixed random order, are cut into m = 1, 2 and 4 equal parts; the mean distance over the m
parts is of n / m samples, and a line in m through the three means, by least squares, meets m = 0 at
FD_infinity. Every image counts once for every m, which makes the line steadier than the paper's random
subsets. The reference stays as it is: the bias of its own finite number remains.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from genbench.errors import UserError
from genbench.metrics.fid import LARGEST, GroupSums, frechet_distance, spread
from genbench.metrics.grouped import GroupedMoments, resamplings
from genbench.metrics.measure import Figure
from genbench.metrics.moments import Moments
from genbench.metrics.reference import Real

PARTS = (1, 2, 4)

BLOCKS = 48
"""Blocks that the images are dealt to: each part is so many whole ones, and resampled ones tell the error."""

REPLICATES = 40
"""Bootstrap replicates, of seven distances each."""


class FrechetInfinity:
    """FD extrapolated to infinitely many samples; up to 512 features with a bootstrap standard error.

    A quarter of the samples must be as many as there are features, else the distance is far from a line.
    """

    requires: frozenset[str] = frozenset({"features"})
    compares: frozenset[str] = requires
    keeps: frozenset[str] = frozenset()
    splits: frozenset[str] = frozenset()

    def start(self, n: int, dimensions: Mapping[str, int]) -> GroupSums:
        dimension = dimensions["features"]
        blocks = BLOCKS if dimension <= LARGEST else max(PARTS)
        least = max(blocks, max(PARTS) * dimension)
        if n < least:
            raise UserError(
                f"metrics.n_samples={n} are too few to extrapolate from with {dimension} features; type "
                f"metrics.n_samples={least} or more, or leave measures=infinity out"
            )
        return GroupSums(self, "features", n, blocks, dimension)

    def figures(self, moments: GroupedMoments, real: Real) -> Sequence[Figure]:
        """The intercept; its error where there are more blocks than the parts need."""
        reference = real().moments
        value = intercept(moments, reference, torch.arange(moments.groups))
        error = None
        if moments.groups > max(PARTS):
            draws = resamplings(moments.groups, REPLICATES)
            error = spread([intercept(moments, reference, draw) for draw in draws])
        return [Figure("fd_infinity", value, "lower", bootstrap_std=error)]


def intercept(moments: GroupedMoments, reference: Moments, blocks: Tensor) -> float:
    """FD_infinity of the images in `blocks`, int64 [G]: which block stands in each place."""
    means = []
    for parts in PARTS:
        unions = [moments.union(part.bincount(minlength=moments.groups)) for part in blocks.chunk(parts)]
        means.append(sum(frechet_distance(union, reference) for union in unions) / parts)
    m, distance = (torch.tensor(values, dtype=torch.float64) for values in (PARTS, means))
    apart = m - m.mean()
    slope = apart @ distance / (apart @ apart)
    return float(distance.mean() - slope * m.mean())
