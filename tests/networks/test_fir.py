"""The resampling filters against closed forms: means, transposes, and what they do to lines."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from genbench.contracts import UserError
from genbench.networks.fir import Down, DownConvolution, Up

BOX, BINOMIAL = (1, 1), (1, 3, 3, 1)


@pytest.mark.parametrize("taps", [BOX, BINOMIAL])
def test_constant_images_stay_constant_away_from_the_zeros_around_them(taps: tuple[int, ...]) -> None:
    x = torch.full((2, 3, 8, 6), 0.7)
    rim = 0 if taps == BOX else 1
    for out in (Down(taps)(x), Up(taps)(x)):
        inside = out[:, :, rim : out.shape[2] - rim, rim : out.shape[3] - rim]
        torch.testing.assert_close(inside, torch.full_like(inside, 0.7), rtol=0, atol=1e-6)
        # At the border the zeros outside take their share: an eighth of K's columns lies there, or a quarter.
        if rim:
            assert float(out[:, :, 0].max()) < 0.7 * 0.95


def test_two_equal_taps_are_the_mean_and_the_nearest_neighbour() -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 3, 4, 6)
    torch.testing.assert_close(Down(BOX)(x), F.avg_pool2d(x, 2), rtol=0, atol=1e-6)
    nearest = x.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
    torch.testing.assert_close(Up(BOX)(x), nearest, rtol=0, atol=1e-6)


@pytest.mark.parametrize("taps", [BOX, BINOMIAL, (1, 5, 10, 10, 5, 1)])
def test_up_is_four_times_the_transpose_of_down(taps: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    x, y = torch.randn(2, 3, 8, 12), torch.randn(2, 3, 4, 6)
    assert Up(taps)(y).shape == x.shape
    left, right = (Down(taps)(x) * y).sum(), (x * Up(taps)(y)).sum() / 4
    torch.testing.assert_close(left, right, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("taps", [BOX, BINOMIAL, (1, 5, 10, 10, 5, 1)])
def test_the_mean_of_what_touches_no_border_is_kept(taps: tuple[int, ...]) -> None:
    x = torch.zeros(1, 1, 16, 16)
    x[:, :, 6:10, 6:10] = torch.rand(4, 4)
    assert float(Down(taps)(x).sum()) == pytest.approx(float(x.sum()) / 4, rel=1e-5)
    assert float(Up(taps)(x).sum()) == pytest.approx(float(x.sum()) * 4, rel=1e-5)


def test_up_by_the_binomial_filter_is_linear_interpolation() -> None:
    rows, columns = torch.meshgrid(torch.arange(6.0), torch.arange(8.0), indexing="ij")
    out = Up(BINOMIAL)((2 * rows - 3 * columns + 1)[None, None])[0, 0]
    places = lambda n: torch.arange(2.0 * n) / 2 - 0.25  # where the new pixels' centres lie among the old
    expected = 2 * places(6)[:, None] - 3 * places(8) + 1
    torch.testing.assert_close(out[1:-1, 1:-1], expected[1:-1, 1:-1], rtol=0, atol=1e-5)


def test_up_then_down_is_the_closed_form() -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 3, 6, 6)
    torch.testing.assert_close(Down(BOX)(Up(BOX)(x)), x, rtol=0, atol=1e-6)
    weights = torch.tensor([6.0, 20.0, 6.0]) / 32  # of the binomial filter with itself, at every second place
    kernel = torch.outer(weights, weights).expand(3, 1, 3, 3)
    expected = F.conv2d(x, kernel, padding=1, groups=3)
    inside = (slice(None), slice(None), slice(1, -1), slice(1, -1))
    again = Down(BINOMIAL)(Up(BINOMIAL)(x))
    torch.testing.assert_close(again[inside], expected[inside], rtol=0, atol=1e-6)


def test_the_binomial_filter_does_not_let_the_finest_stripes_through() -> None:
    stripes = (-1.0) ** torch.arange(16).expand(1, 1, 16, 16)
    assert float(Down(BINOMIAL)(stripes)[..., 1:-1, 1:-1].abs().max()) < 1e-6
    diagonal = torch.cos(torch.arange(16) * torch.pi * 0.75).expand(1, 1, 16, 16)
    assert Down(BINOMIAL)(diagonal).abs().max() < Down(BOX)(diagonal).abs().max()


@pytest.mark.parametrize("taps", [BOX, BINOMIAL])
def test_a_filtered_convolution_is_the_filter_on_the_convolved_image(taps: tuple[int, ...]) -> None:
    """Both are linear and shift with the image, so inside their order does not matter."""
    torch.manual_seed(0)
    layer = DownConvolution(2, 5, taps)
    nn.init.normal_(layer.conv.bias)
    x = torch.randn(3, 2, 12, 8)
    full = F.conv2d(x, layer.conv.weight, padding=1)
    expected = Down(taps)(full) + layer.conv.bias[:, None, None]
    inside = (slice(None), slice(None), slice(1, -1), slice(1, -1))
    out = layer(x)
    assert out.shape == expected.shape == (3, 5, 6, 4)
    torch.testing.assert_close(out[inside], expected[inside], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("layer", [Down(BINOMIAL), Up(BINOMIAL)])
def test_on_a_cpu_it_computes_in_float32_whatever_is_cast_around_it(layer: nn.Module) -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 3, 8, 8)
    exact, rounded = layer(x), x.bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(layer(x), exact)
        assert torch.equal(layer(rounded), layer(rounded.float()).bfloat16())
    assert torch.equal(layer(rounded), layer(rounded.float()).bfloat16())


@pytest.mark.parametrize("taps", [(), (1, 2, 1), (1, 2), (1, -1, -1, 1)])
def test_taps_that_keep_no_mean_are_refused(taps: tuple[int, ...]) -> None:
    with pytest.raises(UserError, match=r"network\.taps.*\[1, 3, 3, 1\]"):
        Down(taps)
