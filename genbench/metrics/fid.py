"""The Fréchet distance between two Gaussians, and through features between two sets of images.

    FD = |m_1 - m_2|^2 + Tr(C_1 + C_2 - 2 (C_1 C_2)^(1/2))

(Dowson and Landau 1982; with Inception's pool features the FID of Heusel et al. 2017). The trace of the
root is the sum of the singular values of L_1^T L_2 for any factors C_i = L_i L_i^T: the eigenvalues of C_1
C_2 are their squares. Factors come from symmetric eigenvalue decompositions, without a matrix square root;
directions in which a set does not vary are left out, so that singular covariances (fewer images than
features) are both exact and cheaper. Taking roots of the eigenvalues of C_1 C_2 itself would turn rounding
of size e into sqrt(e).
"""

from __future__ import annotations

import torch
from torch import Tensor

from genbench.metrics.moments import Moments, SumTensors


class FrechetDistance:
    """The Fréchet distance of streamed features of dimension `dimension` to a reference."""

    kind = "fd"
    better = "lower"
    requires = frozenset({"features"})

    def __init__(self, dimension: int) -> None:
        self.dimension = dimension
        self.moments = Moments()

    def update(self, layers: dict[str, Tensor], index: Tensor) -> None:
        """Adds features [B, D]; the images' numbers play no part."""
        self.moments.update(layers["features"])

    def merge(self, other: FrechetDistance) -> None:
        """Adds what `other` has seen."""
        self.moments.merge(other.moments)

    def reduce(self, sum_tensors: SumTensors, device: torch.device | str = "cpu") -> None:
        """Becomes the state over all ranks; the sums are made on `device`."""
        self.moments.reduce(sum_tensors, self.dimension, device)

    def compute(self, reference: Moments) -> tuple[float, None]:
        """The distance, and no spread: it has no splits."""
        return frechet_distance(self.moments, reference), None


def frechet_distance(a: Moments, b: Moments) -> float:
    """The Fréchet distance in squared feature units, float64, symmetric and never negative.

    Raises ValueError where the two have different dimensions or fewer than two images.
    """
    if a.mean.shape != b.mean.shape:
        raise ValueError(f"features of dimension {len(a.mean)} and {len(b.mean)} cannot be compared")
    first, second = a.covariance.cpu(), b.covariance.cpu()
    difference = a.mean.cpu() - b.mean.cpu()
    cross = torch.linalg.svdvals(_factor(first).T @ _factor(second)).sum()
    distance = difference @ difference + first.trace() + second.trace() - 2 * cross
    # Equal statistics give a zero that rounding may place on either side.
    return max(float(distance), 0.0)


def _factor(covariance: Tensor) -> Tensor:
    """L [D, r] with L L^T = covariance [D, D] up to rounding, r its numerical rank."""
    values, vectors = torch.linalg.eigh((covariance + covariance.T) / 2)
    rounding = float(values.abs().max()) * len(values) * torch.finfo(values.dtype).eps
    kept = values > rounding
    return vectors[:, kept] * values[kept].sqrt()
