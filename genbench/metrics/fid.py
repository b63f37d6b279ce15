"""The Fréchet distance between two Gaussians, and through features between two sets of images.

    FD = |m_1 - m_2|^2 + Tr(C_1 + C_2 - 2 (C_1 C_2)^(1/2))

(`genbench.metrics.gaussians`; with Inception's pool features the FID of Heusel et al. 2017).

Its standard error over images, where one evaluation seed must do, is a bootstrap over groups of images whose
moments are kept apart (`genbench.metrics.grouped`). Far from the reference the distance is nearly linear in
the moments and the estimate is good; near it, where FD is all sampling bias, it is too large by up to 1.7.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import torch
from torch import Tensor

from genbench.errors import UserError
from genbench.metrics.gaussians import Gaussian, distance
from genbench.metrics.grouped import GroupedMoments, dealt, resamplings
from genbench.metrics.measure import Figure, Samples
from genbench.metrics.moments import Moments, SumTensors
from genbench.metrics.reference import Real

GROUPS = 50
"""Groups of images whose moments are kept apart for the bootstrap."""

REPLICATES = 100
"""Bootstrap replicates: their deviation is itself uncertain by a factor of 1 +- 1 / sqrt(200)."""

LARGEST = 512
"""More features than these get no bootstrap: 50 groups of 2,048 would take 1.7 GB, a replicate a second."""

KINDS = {"features": "fd", "spatial": "sfd"}
"""What the distance in each layer is called; Inception's own are FID and sFID (Nash et al. 2021)."""


class FrechetDistance:
    """The Fréchet distance of the layer that plays `role` to that of the reference.

    bootstrap: whether its standard error over images is estimated too, for layers of up to 512 features.
    """

    keeps: frozenset[str] = frozenset()
    splits: frozenset[str] = frozenset()

    def __init__(self, role: str = "features", bootstrap: bool = True) -> None:
        if role not in KINDS:
            raise UserError(f"a Fréchet distance of the layer role={role}: type {' or '.join(KINDS)}")
        self.role, self.kind, self.bootstrap = role, KINDS[role], bootstrap
        self.requires = self.compares = frozenset({role})

    def start(self, n: int, dimensions: Mapping[str, int]) -> GroupSums:
        small = dimensions[self.role] <= LARGEST
        return GroupSums(self, self.role, n, GROUPS if self.bootstrap and small else 1, dimensions[self.role])

    def figures(self, moments: GroupedMoments, real: Real) -> Sequence[Figure]:
        """The distance, with its bootstrap error where the images were kept in groups."""
        reference = real(self.role)
        real_gaussian = gaussian(reference.moments)  # factored once, for all replicates
        value = distance(gaussian(moments.union()), real_gaussian)
        error = None
        if moments.groups > 1:
            weights = (
                draw.bincount(minlength=moments.groups) for draw in resamplings(moments.groups, REPLICATES)
            )
            error = spread([distance(gaussian(moments.union(weight)), real_gaussian) for weight in weights])
        return [Figure(self.kind, value, "lower", bootstrap_std=error, against=[reference])]


class OfGroups(Protocol):
    """A measure that is computed from the moments of groups of images."""

    def figures(self, moments: GroupedMoments, real: Real) -> Sequence[Figure]:
        """Its figures."""


class GroupSums:
    """The moments of one layer of `n` images, in at most `groups` groups of images dealt at random."""

    def __init__(self, measure: OfGroups, role: str, n: int, groups: int, dimension: int) -> None:
        self.measure, self.role = measure, role
        self.moments = GroupedMoments(min(groups, n), dimension)
        self._owner = dealt(n, self.moments.groups)

    def update(self, layers: Mapping[str, Tensor], index: Tensor) -> None:
        """Adds features [B, D] of images numbered `index`, int64 [B]."""
        self.moments.update(layers[self.role], self._owner[index.cpu()])

    def merge(self, other: GroupSums) -> None:
        """Adds what `other` has seen."""
        self.moments.merge(other.moments)

    def reduce(self, sum_tensors: SumTensors, device: torch.device | str = "cpu") -> None:
        """Becomes the state over all ranks; the sums are made on `device`."""
        self.moments.reduce(sum_tensors, device)

    def compute(self, samples: Samples, real: Real) -> Sequence[Figure]:
        """What the measure makes of them."""
        return self.measure.figures(self.moments, real)


def spread(replicates: Sequence[float]) -> float:
    """The sample deviation of a statistic over bootstrap replicates."""
    return float(torch.tensor(replicates, dtype=torch.float64).std())


def frechet_distance(a: Moments, b: Moments) -> float:
    """The Fréchet distance in squared feature units, float64, symmetric and never negative.

    Raises ValueError where the two have different dimensions or fewer than two images.
    """
    return distance(gaussian(a), gaussian(b))


def gaussian(moments: Moments) -> Gaussian:
    """The Gaussian of these moments, on the CPU. Raises ValueError for fewer than two images."""
    return Gaussian(moments.n, moments.mean.cpu(), moments.covariance.cpu(), torch)
