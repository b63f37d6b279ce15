"""Quantiles of how far pixels are from zero, against sorting all of them; the kernel bit for bit."""

from __future__ import annotations

import math

import pytest
import torch
from ahead import Variant, compiled

from genbench.ops.kernels.quantile import neighbours_of_place
from genbench.ops.quantile import magnitude

SIZES = [1, 2, 3, 64, 100, 3072]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("share", [0.5, 0.9, 0.995, 1.0])
def test_it_is_the_quantile_of_each_image(size, share):
    torch.manual_seed(size)
    x = torch.randn(3, 1, size, dtype=torch.float64)
    expected = torch.quantile(x.flatten(1).abs(), share, dim=1)
    torch.testing.assert_close(magnitude(x, share), expected, rtol=1e-14, atol=1e-14)


def test_of_equal_pixels_it_is_their_value():
    assert magnitude(torch.full((2, 7), -0.25), 0.99).tolist() == [0.25, 0.25]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("size", SIZES)
def test_the_kernel_finds_what_sorting_finds(size, dtype):
    torch.manual_seed(size)
    x = torch.randn(4, size).to(dtype)
    x[1] = x[1].round()  # many times the same
    x[2] = 0.0
    x[3, 0] = math.inf
    ordered = x.float().abs().sort(dim=1).values
    for below in {0, size // 2, max(size - 2, 0), size - 1}:
        low, high = neighbours_of_place(x, below)
        assert torch.equal(low, ordered[:, below])
        assert torch.equal(high, ordered[:, min(below + 1, size - 1)])


def test_the_kernel_puts_nan_last_as_sorting_does():
    x = torch.tensor([[0.5, math.nan, -2.0, 1.0]])
    assert [neighbours_of_place(x, below)[0].item() for below in range(3)] == [0.5, 1.0, 2.0]
    assert neighbours_of_place(x, 3).isnan().all()
    assert magnitude(x, 1.0).isnan().all()


def test_on_a_gpu_an_image_is_read_once_and_stays_in_registers():
    """Of 3x32x32 by 8 warps: 16 values a thread, by 16 bytes; a turn of the loop compares and counts them."""
    names = {"x": "*fp32", "out": "*fp32", "size": "i32", "images": "i32", "below": "i32"}
    (kernel,) = compiled(
        Variant(
            "genbench.ops.kernels.quantile:statistics_kernel", names, {"BLOCK": 4096}, ["x", "out", "size"], 8
        )
    )
    assert kernel.stack == 0
    assert kernel.loads == [16] * 4
    assert kernel.registers <= 64
    assert kernel.instructions <= 320  # by the newest Triton 276, by the oldest 304


@pytest.mark.gpu
@pytest.mark.parametrize("size", SIZES)
def test_on_a_gpu_it_is_the_same(size):
    x = torch.randn(5, size)
    for share in (0.5, 0.995, 1.0):
        torch.testing.assert_close(magnitude(x.cuda(), share).cpu(), magnitude(x, share), rtol=1e-6, atol=0)
