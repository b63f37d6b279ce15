"""The Fréchet distance between two Gaussians, and through features between two sets of images.

    FD = |m_1 - m_2|^2 + Tr(C_1 + C_2 - 2 (C_1 C_2)^(1/2))

(Dowson and Landau 1982; with Inception's pool features the FID of Heusel et al. 2017). The trace of the
root is the sum of the singular values of M = L_1^T L_2 for any factors C_i = L_i L_i^T: the eigenvalues of
C_1 C_2 are their squares. No matrix root is taken. Factors are Cholesky's where there are more images than
features, else from eigenvectors, leaving out directions in which a set does not vary: singular covariances
are both exact and cheap. Singular values are roots of the eigenvalues of M M^T wherever that is accurate:
rounding of size e in an eigenvalue l is e / (2 sqrt(l)) in its root, harmless unless l is tiny, when the
slower decomposition of M is used.
"""

from __future__ import annotations

import torch
from torch import Tensor

from genbench.metrics.moments import Moments, SumTensors
from genbench.metrics.reference import Reference


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

    def compute(self, reference: Reference) -> tuple[float, None]:
        """The distance, and no spread: it has no splits."""
        return frechet_distance(self.moments, reference.moments), None


def frechet_distance(a: Moments, b: Moments) -> float:
    """The Fréchet distance in squared feature units, float64, symmetric and never negative.

    Raises ValueError where the two have different dimensions or fewer than two images.
    """
    if a.mean.shape != b.mean.shape:
        raise ValueError(f"features of dimension {len(a.mean)} and {len(b.mean)} cannot be compared")
    first, second = a.covariance.cpu(), b.covariance.cpu()
    difference = a.mean.cpu() - b.mean.cpu()
    cross = _sum_of_singular_values(_factor(first, a.n).T @ _factor(second, b.n))
    distance = difference @ difference + first.trace() + second.trace() - 2 * cross
    # Equal statistics give a zero that rounding may place on either side.
    return max(float(distance), 0.0)


def _factor(covariance: Tensor, n: int) -> Tensor:
    """L [D, r] with L L^T = covariance [D, D], estimated from n images, up to rounding; r its rank or D."""
    if n > len(covariance):
        factor, failed = torch.linalg.cholesky_ex(covariance)
        if not failed:
            return factor
    values, vectors = torch.linalg.eigh((covariance + covariance.T) / 2)
    rounding = float(values.abs().max()) * len(values) * torch.finfo(values.dtype).eps
    kept = values > rounding
    return vectors[:, kept] * values[kept].sqrt()


def _sum_of_singular_values(matrix: Tensor) -> Tensor:
    """Of float64 [r, s], to nine digits of the sum at least."""
    gram = matrix @ matrix.T if len(matrix) <= matrix.shape[1] else matrix.T @ matrix
    values = torch.linalg.eigvalsh(gram).clamp_(min=0.0)
    if len(values) == 0:
        return values.sum()
    roots = values.sqrt()
    rounding = values.max() * torch.finfo(values.dtype).eps * len(values) ** 0.5
    doubt = torch.minimum(rounding.sqrt(), rounding / (2 * roots)).sum() if rounding > 0 else rounding
    return roots.sum() if doubt <= 1e-9 * roots.sum() else torch.linalg.svdvals(matrix).sum()
