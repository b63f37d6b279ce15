"""Distances between sets of vectors whose transport is known."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from genbench.solvers.wasserstein import SlicedWasserstein


@given(shift=st.floats(-5, 5), count=st.integers(1, 20), copies=st.integers(1, 4))
def test_a_shifted_copy_is_as_far_as_the_shift(shift, count, copies):
    p = torch.randn(count, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    q = (p + shift).repeat(copies, 1)[torch.randperm(count * copies)]
    assert SlicedWasserstein(q)(p) == pytest.approx(abs(shift), abs=1e-9)


def test_mass_is_split_where_there_are_more_to_match():
    assert SlicedWasserstein(torch.tensor([[1.0], [-3.0]]))(torch.tensor([[0.0]])) == 2.0


def test_gaussians_of_two_widths():
    """W1(N(0, 1), N(0, c^2)) = |c - 1| E|z|."""
    quantiles = torch.special.ndtri((torch.arange(20_000, dtype=torch.float64) + 0.5) / 20_000)[:, None]
    distance = SlicedWasserstein(quantiles)(1.5 * quantiles)
    assert distance == pytest.approx(0.5 * math.sqrt(2 / math.pi), rel=1e-3)


def test_a_shift_in_many_dimensions_is_seen_by_its_projections():
    """A shift a is as far as E|<a, axis>| = |a| Gamma(D/2) / (sqrt(pi) Gamma((D+1)/2)), over many axes."""
    p = torch.randn(50, 1, 4, 4, generator=torch.Generator().manual_seed(1))
    cosine = math.exp(math.lgamma(8) - math.lgamma(8.5)) / math.sqrt(math.pi)
    distance = SlicedWasserstein(p, directions=20_000)
    assert distance(p + 1) == pytest.approx(4 * cosine, rel=4 * 0.75 / 20_000**0.5)
    assert distance(p + 2) == pytest.approx(2 * distance(p + 1), rel=1e-6)


def test_counts_that_do_not_divide_are_refused():
    with pytest.raises(ValueError, match="do not divide"):
        SlicedWasserstein(torch.zeros(4, 1))(torch.zeros(3, 1))
