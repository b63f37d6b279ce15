"""The distance between Gaussians is the same in both libraries. Its values: test_fid.py."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from genbench.metrics.fid import gaussian
from genbench.metrics.gaussians import Gaussian, distance
from genbench.metrics.moments import Moments


def drawn(seed: int, n: int, decades: float) -> Gaussian:
    """What n draws of 48 features have, whose deviations fall by so many powers of ten, in any order."""
    generator = torch.Generator().manual_seed(seed)
    scale = torch.logspace(0, -decades, 48, dtype=torch.float64)[torch.randperm(48, generator=generator)]
    return gaussian(Moments.of(scale * torch.randn(n, 48, dtype=torch.float64, generator=generator)))


def numbers(of: Gaussian) -> Gaussian:
    return Gaussian(of.n, of.mean.numpy(), of.covariance.numpy())


# Singular where there are fewer images than features; eigenvalues far below rounding where they fall fast,
# which takes the slower decomposition.
@pytest.mark.parametrize("decades", [0.0, 3.0, 8.0])
@pytest.mark.parametrize("n", [12, 400])
def test_both_libraries_give_one_distance(n: int, decades: float) -> None:
    a, b = drawn(0, n, decades), drawn(1, 3 * n, decades)
    expected = distance(a, b)
    # Two LAPACKs of float64; singular values are right to nine digits of their sum.
    assert distance(numbers(a), numbers(b)) == pytest.approx(expected, rel=1e-9)
    assert distance(numbers(b), numbers(a)) == pytest.approx(expected, rel=1e-9)


def test_sets_that_do_not_vary_are_as_far_as_their_means() -> None:
    still = Gaussian(5, np.zeros(3), np.zeros((3, 3)))
    assert distance(still, Gaussian(5, np.array([3.0, 0.0, 4.0]), np.zeros((3, 3)))) == 25.0
