"""The Fréchet distance between two Gaussians, given by mean and covariance.

    FD = |m_1 - m_2|^2 + Tr(C_1 + C_2 - 2 (C_1 C_2)^(1/2))

(Dowson and Landau 1982). The trace of the root is the sum of the singular values of M = L_1^T L_2 for any
factors C_i = L_i L_i^T: the eigenvalues of C_1 C_2 are their squares. No matrix root is taken. Factors are
Cholesky's where there are more images than features, else from eigenvectors, leaving out directions in which
a set does not vary: singular covariances are both exact and cheap. Singular values are roots of the
eigenvalues of M M^T wherever that is accurate: rounding of size e in an eigenvalue l is e / (2 sqrt(l)) in
its root, harmless unless l is tiny, when the slower decomposition of M is used.

Written once for two libraries whose names agree: torch's, in which features are summed, and NumPy's, in which
a leaderboard's distances are derived again: importing torch takes half a gigabyte and two seconds a process.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

Array = Any
"""A tensor of torch on the CPU, or an array of NumPy; float64."""


@dataclass(frozen=True)
class Gaussian:
    """What n images' features have: mean [D] and covariance [D, D], arrays of `library` (torch or numpy)."""

    n: int
    mean: Array
    covariance: Array
    library: Any = np

    @cached_property
    def factor(self) -> Array:
        """L [D, r] with L L^T = covariance, up to rounding; r its rank or D."""
        linalg = self.library.linalg
        if self.n > len(self.covariance):
            try:
                return linalg.cholesky(self.covariance)
            except linalg.LinAlgError:  # singular all the same
                pass
        values, vectors = linalg.eigh((self.covariance + self.covariance.T) / 2)
        rounding = float(abs(values).max()) * len(values) * self.library.finfo(values.dtype).eps
        kept = values > rounding
        return vectors[:, kept] * self.library.sqrt(values[kept])


def distance(a: Gaussian, b: Gaussian) -> float:
    """The Fréchet distance of two Gaussians of one library: symmetric and never negative.

    Raises ValueError where they have different dimensions.
    """
    if a.mean.shape != b.mean.shape:
        raise ValueError(f"features of dimension {len(a.mean)} and {len(b.mean)} cannot be compared")
    apart = a.mean - b.mean
    cross = _sum_of_singular_values(a.factor.T @ b.factor, a.library)
    # Equal statistics give a zero that rounding may place on either side.
    return max(float(apart @ apart + a.covariance.trace() + b.covariance.trace() - 2 * cross), 0.0)


def _sum_of_singular_values(matrix: Array, library: Any) -> Array:
    """Of float64 [r, s], to nine digits of the sum at least."""
    gram = matrix @ matrix.T if len(matrix) <= matrix.shape[1] else matrix.T @ matrix
    values = library.clip(library.linalg.eigvalsh(gram), 0.0, None)
    if len(values) == 0:
        return values.sum()
    roots = library.sqrt(values)
    rounding = float(values.max()) * library.finfo(values.dtype).eps * len(values) ** 0.5
    if rounding == 0.0:
        return roots.sum()
    # sqrt(e) where the root is smaller than that, else e / (2 root)
    doubt = (rounding / library.clip(2 * roots, rounding**0.5, None)).sum()
    return roots.sum() if doubt <= 1e-9 * roots.sum() else library.linalg.norm(matrix, "nuc")
