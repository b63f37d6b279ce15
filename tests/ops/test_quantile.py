"""Quantiles of images against sorting all of them."""

from __future__ import annotations

import pytest
import torch

from genbench.ops.quantile import quantile


@pytest.mark.parametrize("size", [1, 2, 3, 64, 3072])
@pytest.mark.parametrize("share", [0.5, 0.9, 0.995, 1.0])
def test_it_is_the_quantile_of_each_image(size, share):
    torch.manual_seed(size)
    x = torch.randn(3, 1, size, dtype=torch.float64)
    expected = torch.quantile(x.flatten(1), share, dim=1)
    torch.testing.assert_close(quantile(x, share), expected, rtol=1e-14, atol=1e-14)


def test_of_equal_pixels_it_is_their_value():
    assert quantile(torch.full((2, 7), 0.25), 0.99).tolist() == [0.25, 0.25]
