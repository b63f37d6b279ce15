"""The Fréchet distance: closed forms, symmetry, singular covariances, and torch-fidelity's values."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric

from genbench.metrics.fid import frechet_distance
from genbench.metrics.moments import Moments


def gaussian(mean: Tensor, covariance: Tensor, n: int = 11) -> Moments:
    """Moments with exactly this mean and covariance."""
    return Moments.from_state({"n": torch.tensor([n]), "mean": mean, "scatter": covariance * (n - 1)})


def features(seed: int, n: int, dimension: int, rank: int | None = None) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(rank or dimension, dimension, generator=generator)
    drawn = torch.randn(n, rank or dimension, generator=generator) @ mixing + torch.randn(
        dimension, generator=generator
    )
    return torch.relu(drawn)


@pytest.mark.parametrize(("c_1", "c_2"), [(1.0, 1.0), (1.0, 0.25), (3.0, 0.0), (0.0, 0.0)])
def test_isotropic_gaussians_have_a_closed_form(c_1: float, c_2: float) -> None:
    dimension = 5
    generator = torch.Generator().manual_seed(0)
    m_1, m_2 = torch.randn(2, dimension, generator=generator, dtype=torch.float64)
    eye = torch.eye(dimension, dtype=torch.float64)
    expected = float((m_1 - m_2).square().sum()) + dimension * (c_1 - c_2) ** 2
    found = frechet_distance(gaussian(m_1, c_1**2 * eye), gaussian(m_2, c_2**2 * eye))
    assert found == pytest.approx(expected, rel=1e-13)


def test_commuting_covariances_have_a_closed_form() -> None:
    generator = torch.Generator().manual_seed(0)
    basis, _ = torch.linalg.qr(torch.randn(6, 6, generator=generator, dtype=torch.float64))
    a, b = torch.tensor([[4.0, 1, 9, 0, 0, 2], [1.0, 0, 16, 3, 0, 2]], dtype=torch.float64)
    zero = torch.zeros(6, dtype=torch.float64)
    one, two = (gaussian(zero, basis @ torch.diag(values) @ basis.T) for values in (a, b))
    expected = float((a.sqrt() - b.sqrt()).square().sum())
    assert frechet_distance(one, two) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("decades", [0, 3, 6, 9, 12])
@pytest.mark.parametrize("aligned", [True, False])
@pytest.mark.parametrize("n", [30, 300], ids=["fewer", "more"])
def test_spectra_of_many_decades_have_a_closed_form(n: int, aligned: bool, decades: int) -> None:
    """Features of images decay so; the sum of roots must be right though the matrices are near singular."""
    generator = torch.Generator().manual_seed(0)
    basis, _ = torch.linalg.qr(torch.randn(100, 100, generator=generator, dtype=torch.float64))
    a = torch.logspace(0, -decades, 100, dtype=torch.float64)
    b = 4 * (a if aligned else a[torch.randperm(100, generator=generator)])
    zero = torch.zeros(100, dtype=torch.float64)
    one, two = (gaussian(zero, basis @ torch.diag(values) @ basis.T, n) for values in (a, b))
    expected = float((a.sqrt() - b.sqrt()).square().sum())
    assert frechet_distance(one, two) == pytest.approx(expected, rel=1e-8, abs=1e-9)


@pytest.mark.parametrize("rank", [None, 3])
def test_identical_statistics_are_at_distance_zero(rank: int | None) -> None:
    moments = Moments.of(features(0, 40, 64, rank))
    scale = float(moments.covariance.trace())
    assert frechet_distance(moments, moments) < 1e-12 * scale
    assert frechet_distance(moments, moments) < 1e-6


@pytest.mark.parametrize("n", [20, 500])
def test_the_distance_is_symmetric(n: int) -> None:
    a, b = Moments.of(features(0, n, 32)), Moments.of(features(1, n, 32))
    assert frechet_distance(a, b) == pytest.approx(frechet_distance(b, a), rel=1e-13)


@pytest.mark.parametrize(("n", "dimension"), [(2000, 64), (3000, 256)])
def test_torch_fidelity_agrees(n: int, dimension: int) -> None:
    a, b = features(0, n, dimension), 1.1 * features(1, n + 100, dimension)
    oracle = fid_statistics_to_metric(
        fid_features_to_statistics(a), fid_features_to_statistics(b), verbose=False
    )
    found = frechet_distance(Moments.of(a), Moments.of(b))
    assert found == pytest.approx(oracle["frechet_inception_distance"], rel=1e-6)


def test_fewer_images_than_features_agree_with_exact_arithmetic() -> None:
    # An orthonormal change of coordinates to the span of both sets changes no distance; there the matrices
    # are small.
    a, b = features(0, 6, 50).double(), features(1, 6, 50).double()
    basis, _ = torch.linalg.qr(torch.cat([a, b]).T)
    full = frechet_distance(Moments.of(a), Moments.of(b))
    small = frechet_distance(Moments.of(a @ basis), Moments.of(b @ basis))
    assert full == pytest.approx(small, rel=1e-12)


def test_what_cannot_be_compared_is_refused() -> None:
    with pytest.raises(ValueError, match="3 and 4"):
        frechet_distance(Moments.of(torch.randn(5, 3)), Moments.of(torch.randn(5, 4)))
    with pytest.raises(ValueError, match="at least 2"):
        frechet_distance(Moments.of(torch.randn(5, 3)), Moments.of(torch.randn(1, 3)))
