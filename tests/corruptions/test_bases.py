"""Orthonormal bases: round trips, heat, and means over blocks."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from genbench.corruptions.bases import BlockMeans, Cosines

BASES = [Cosines(), BlockMeans()]
sides = st.integers(1, 40)


@pytest.mark.parametrize("basis", BASES, ids=lambda basis: type(basis).__name__)
@given(height=sides, width=sides)
def test_bases_are_orthonormal_for_any_sides(basis, height, width):
    x = torch.randn(2, 3, height, width, dtype=torch.float64)
    coefficients = basis.forward(x)
    torch.testing.assert_close(basis.inverse(coefficients), x)
    torch.testing.assert_close(coefficients.square().sum(), x.square().sum())


def test_a_wave_has_one_coefficient():
    """cos(pi n (i + 1/2) / H) is the n-th row of the basis, up to its norm."""
    wave = torch.cos(math.pi * 3 * (torch.arange(8, dtype=torch.float64) + 0.5) / 8)[:, None].expand(8, 5)
    coefficients = Cosines().forward(wave[None, None])[0, 0]
    assert coefficients[3, 0].item() == pytest.approx((8 / 2 * 5) ** 0.5)
    coefficients[3, 0] = 0
    assert coefficients.abs().max() < 1e-14


def blurred(x: torch.Tensor, std: float) -> torch.Tensor:
    basis = Cosines()
    decay = basis.decay(*x.shape[-2:])
    return basis.inverse((-decay * std**2 / 2).exp() * basis.forward(x))


def test_blurs_compose_and_keep_the_mean():
    x = torch.randn(2, 3, 16, 12, dtype=torch.float64)
    both = blurred(blurred(x, 1.5), 2.0)
    torch.testing.assert_close(both, blurred(x, 2.5))
    torch.testing.assert_close(both.mean(dim=(-2, -1)), x.mean(dim=(-2, -1)))


def test_a_small_blur_is_a_gaussian_kernel():
    """Far from the edges, of a point: e^(-r^2 / 2 s^2) / (2 pi s^2)."""
    x = torch.zeros(1, 1, 33, 33, dtype=torch.float64)
    x[0, 0, 16, 16] = 1
    i = torch.arange(33, dtype=torch.float64) - 16
    expected = torch.exp(-(i[:, None] ** 2 + i**2) / (2 * 4)) / (2 * math.pi * 4)
    torch.testing.assert_close(blurred(x, 2.0)[0, 0], expected, atol=1e-9, rtol=0)


@pytest.mark.parametrize(
    ("side", "sizes"), [(8, [1, 2, 4, 8]), (28, [1, 2, 4, 28]), (32, [1, 2, 4, 8, 16, 32]), (7, [1, 7])]
)
def test_coefficients_from_a_level_up_are_means_over_blocks(side, sizes):
    basis = BlockMeans()
    assert basis.blocks(side) == sizes
    x = torch.randn(2, 1, side, side, dtype=torch.float64)
    level = torch.minimum(basis.levels(side)[:, None], basis.levels(side))
    for number, size in enumerate(sizes):
        found = basis.inverse(basis.forward(x) * (level >= number))
        means = F.avg_pool2d(x, size).repeat_interleave(size, -1).repeat_interleave(size, -2)
        torch.testing.assert_close(found, means)


def test_what_sampling_has_made_serves_in_training():
    basis, x = Cosines(), torch.randn(1, 1, 4, 4)
    with torch.inference_mode():
        basis.forward(x)
    weight = torch.ones(1, requires_grad=True)
    basis.forward(weight * x).square().sum().backward()
    torch.testing.assert_close(weight.grad, 2 * x.square().sum().reshape(1))
