"""The entropy of a sample, from the distances to nearest neighbours (Kozachenko & Leonenko 1987).

With eps_k(i) the distance of z_i to its k-th nearest neighbour among n points in d dimensions, and B_d the
volume of the unit ball of that distance,

    H = (d / n) sum_i log eps_k(i) + log B_d + psi(n) - psi(k)

in nats, psi being the digamma function. With k = 1, psi(n) is often written log(n - 1); the two differ by
1 / (2 n) to first order.

The estimate is of density, hence of distances *between different points*: its bias grows with d, and from
some 64 dimensions on it is a way to push codes apart rather than a calibrated number.
"""

from __future__ import annotations

import torch
from torch import Tensor

from genbench.errors import UserError
from genbench.ops.neighbours import Distance, Euclidean, neighbours


class NearestNeighbourEntropy:
    """z [n, d] to its entropy in nats, a scalar in float32 or better, differentiable in z.

    k: which neighbour; distance: see `genbench.ops.neighbours`; least: what a distance is raised to where
    points coincide (the data holds an image twice), whose logarithm would be -inf. Such a pair gets no
    gradient: there is no direction in which to part it.

    Who is whose neighbour is found without a gradient; the n distances to them are then differentiated at
    *both* ends, since moving z_i also moves it away from, or towards, every point that it is the neighbour
    of. Raises UserError where n <= k.
    """

    def __init__(self, k: int = 1, distance: Distance | None = None, least: float = 1e-8) -> None:
        if k < 1 or least <= 0:
            raise UserError(f"the entropy needs k >= 1 and least > 0, found k={k}, least={least}")
        self.k = k
        self.distance = Euclidean() if distance is None else distance
        self.least = least

    def require(self, count: int) -> None:
        """Raises UserError where `count` points are too few."""
        if count <= self.k:
            raise UserError(
                f"The entropy of {count} points cannot be estimated from the distance to neighbour "
                f"k={self.k}; it needs at least {self.k + 1} points on each rank and in each micro-batch. "
                "Raise trainer.batch_size, or lower trainer.accumulate."
            )

    def __call__(self, z: Tensor) -> Tensor:
        count, dimension = z.shape
        self.require(count)
        nearest = neighbours(z, z, self.k, self.distance)[:, -1]
        distances = self.distance.between(z, z[nearest]).clamp(min=self.least)
        constant = self.distance.log_unit_ball(dimension) + _digamma(count) - _digamma(self.k)
        return dimension * distances.log().mean() + constant


def _digamma(n: int) -> float:
    return float(torch.special.digamma(torch.tensor(n, dtype=torch.float64)))
