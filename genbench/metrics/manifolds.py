"""Fidelity and diversity apart, by balls around points: what of one set lies where the other is.

A set's manifold is the union of a ball around each of its points, as far as its k-th nearest neighbour in the
set. With real x_1 ... x_N, generated y_1 ... y_n, r_k the radius of a point, and a ball closed:

    precision   share of y inside the manifold of x
    recall      share of x inside the manifold of y
    density     1 / (k n) sum_ij 1[|y_j - x_i| <= r_k(x_i)]
    coverage    share of x_i with a y in its ball

Precision and recall: Kynkaanniemi et al. (2019), k = 3, as torch-fidelity; density and coverage: Naeem et al.
(2020), k = 5. Density is not spoilt by outliers among x, whose balls are large, and may exceed 1; coverage is
of balls of real images alone. All depend on how many images there are: compare at equal counts only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import sqrt

from torch import Tensor

from genbench.errors import UserError
from genbench.metrics.measure import Figure, OfSets, Samples
from genbench.metrics.reference import Real
from genbench.ops.balls import held, held_by_each_other, radii


class PrecisionRecall(OfSets):
    """Improved precision and recall. For given real images precision is a mean over samples, and has its
    standard error; recall depends on all samples at once and has none.
    """

    def __init__(self, k: int = 3) -> None:
        self.k = _checked(k)

    def check(self, n: int, dimensions: Mapping[str, int]) -> None:
        _check_count(n, self.k)

    def compute(self, samples: Samples, real: Real) -> Sequence[Figure]:
        generated = samples.layers["features"]
        actual = real().features().to(generated.device)
        inside, covered = overlap(generated, actual, self.k)
        precision, error = _mean(inside)
        return [
            Figure("precision", precision, "higher", bootstrap_std=error),
            Figure("recall", _mean(covered)[0], "higher"),
        ]


def overlap(generated: Tensor, actual: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Which of the generated features [n, D] lie in the manifold of the actual [N, D], and the reverse: bool
    [n] and [N].
    """
    inside, covered = held_by_each_other(generated, radii(generated, k), actual, radii(actual, k))
    return inside.balls > 0, covered.balls > 0


class DensityCoverage(OfSets):
    """Density and coverage; density with its standard error over samples."""

    def __init__(self, k: int = 5) -> None:
        self.k = _checked(k)

    def check(self, n: int, dimensions: Mapping[str, int]) -> None:
        _check_count(n, self.k)

    def compute(self, samples: Samples, real: Real) -> Sequence[Figure]:
        generated = samples.layers["features"]
        actual = real().features().to(generated.device)
        balls, points = held(generated, actual, radii(actual, self.k))
        density, error = _mean(balls.double() / self.k)
        return [
            Figure("density", density, "higher", bootstrap_std=error),
            Figure("coverage", _mean(points > 0)[0], "higher"),
        ]


def _mean(values: Tensor) -> tuple[float, float]:
    """The mean of [n] numbers and its standard error: what a bootstrap over them tends to."""
    values = values.double()
    return float(values.mean()), float(values.std(correction=0)) / sqrt(len(values))


def _checked(k: int) -> int:
    if k < 1:
        raise UserError(f"a ball reaches to a neighbour: found k={k}, type k=1 or more")
    return k


def _check_count(n: int, k: int) -> None:
    if n <= k:
        raise UserError(f"metrics.n_samples={n}: balls to the {k}-th neighbour need {k + 1} samples at least")
