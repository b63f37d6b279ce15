"""Quantisation: the inverse of k / 127.5 - 1, ties to even, clipping at both ends; kernels bit for bit."""

from __future__ import annotations

import math

import pytest
import torch
from ahead import Variant, compiled
from hypothesis import given
from hypothesis import strategies as st

from genbench.ops.kernels import quantize as kernels
from genbench.ops.quantize import QUANTISER, dequantize, pixels, quantize


def test_quantise_inverts_dequantise_on_every_level() -> None:
    levels = torch.arange(256, dtype=torch.uint8)
    assert torch.equal(quantize(dequantize(levels)), levels)
    assert dequantize(levels)[[0, -1]].tolist() == [-1.0, 1.0]


def test_ties_go_to_the_even_level() -> None:
    halves = torch.arange(255, dtype=torch.float64) + 0.5
    images = halves / 127.5 - 1
    exact = (images + 1) * 127.5 == halves  # some ties do not survive float64; most do
    found = quantize(images[exact]).double()
    assert exact.sum() > 100
    assert set((found - halves[exact]).tolist()) == {-0.5, 0.5}
    assert not (found % 2).any()
    assert quantize(torch.zeros(1)).item() == 128
    assert "half-even" in QUANTISER


def test_values_beyond_the_range_are_clipped() -> None:
    beyond = torch.tensor([-7.0, -1.001, 1.001, 7.0, math.inf, -math.inf])
    assert quantize(beyond).tolist() == [0, 0, 255, 255, 255, 0]


@given(st.floats(-1, 1, width=32))
def test_quantising_moves_a_value_by_at_most_half_a_level(value: float) -> None:
    moved = dequantize(quantize(torch.tensor([value]))).double().item() - value
    assert abs(moved) <= 0.5 / 127.5 + 2e-7


def test_half_precision_is_widened_before_it_is_scaled() -> None:
    images = torch.linspace(-1, 1, 1001).bfloat16()
    assert torch.equal(quantize(images), quantize(images.float()))


def test_the_input_is_left_alone() -> None:
    images = torch.linspace(-2, 2, 9)
    before = images.clone()
    quantize(images)
    assert torch.equal(images, before)


def test_what_has_no_grey_level_is_refused() -> None:
    with pytest.raises(ValueError, match="NaN"):
        quantize(torch.tensor([0.0, math.nan]))
    with pytest.raises(ValueError, match="uint8"):
        quantize(torch.zeros(3, dtype=torch.uint8))


SHAPES = [(2, 3, 8, 8), (3, 1, 28, 28), (2, 3, 5, 7), (1, 4, 16, 16), (5, 2, 1, 3), (129, 3, 4, 4)]
"""Packs of 16 pixels and none, whole blocks and none, and more packs than a program has."""
DTYPES = [torch.float32, torch.bfloat16, torch.float16]


def test_pixels_are_the_levels_with_channels_last() -> None:
    for shape in SHAPES:
        images = torch.randn(shape)
        for laid in (images, images.to(memory_format=torch.channels_last)):
            stored = pixels(laid)
            assert stored.is_contiguous()
            assert torch.equal(stored, quantize(images).permute(0, 2, 3, 1))
    with pytest.raises(ValueError, match="NaN"):
        pixels(torch.full((1, 3, 2, 2), math.nan))
    with pytest.raises(ValueError, match="int64"):
        pixels(torch.zeros(1, 3, 2, 2, dtype=torch.int64))


def awkward(shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
    """Images with every kind of value: ties, both ends, what lies beyond them, and what rounding decides."""
    torch.manual_seed(0)
    images = torch.randn(shape).flatten()
    ties = (torch.arange(255) + 0.5) / 127.5 - 1
    ends = torch.tensor([-1.0, 1.0, -7.0, 7.0, math.inf, -math.inf, 65504.0])
    special = torch.cat((ends, ties, ties.nextafter(torch.tensor(2.0)), ties.nextafter(torch.tensor(-2.0))))
    images[: len(special)] = special[: len(images)]
    return images.reshape(shape).to(dtype)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", SHAPES)
def test_kernels_give_the_same_levels(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    """Every bit: there is one quantiser."""
    images = awkward(shape, dtype)
    expected = quantize(images)
    for laid in (images, images.to(memory_format=torch.channels_last)):
        found, nan = kernels.levels(laid)
        assert torch.equal(found, expected)
        assert int(nan) == 0
    found, nan = kernels.interleaved(images)
    assert torch.equal(found, expected.permute(0, 2, 3, 1))
    assert int(nan) == 0


@pytest.mark.parametrize("shape", SHAPES)
def test_kernels_see_nan_wherever_it_is(shape: tuple[int, ...]) -> None:
    for place in (0, -1):
        images = torch.randn(shape)
        images.view(-1)[place] = math.nan
        assert int(kernels.levels(images)[1]) == int(kernels.interleaved(images)[1]) == 1


def test_compiled_kernels_read_and_write_16_bytes() -> None:
    """Of 32 elements a thread, or 48; reading 4.3 TB/s leaves time for some 90 instructions an element."""
    name, variants = "genbench.ops.kernels.quantize", []
    for kind in ("fp32", "bf16"):
        common = {"images": f"*{kind}", "nan": "*i32", "count": "i32"}
        as_they_lie = common | {"out": "*u8"}
        triples = common | {"out": "*i32", "positions": "i32"}
        aligned = ["images", "out", "count"]
        variants += [
            Variant(f"{name}:levels_kernel", as_they_lie, {"BLOCK": kernels.BLOCK}, aligned, warps=8),
            Variant(f"{name}:triples_kernel", triples, {"PACKS": kernels.PACKS}, [*aligned, "positions"]),
        ]
    for variant, made in zip(variants, compiled(*variants), strict=True):
        elements = 32 if "BLOCK" in variant.constants else 48
        size = 4 if variant.signature["images"] == "*fp32" else 2
        assert made.stack == 0
        assert made.loads == [16] * (elements * size // 16)
        assert sorted(made.stores) == [4] + [16] * (elements // 16)  # the flag, and the levels
        assert made.instructions <= 22 * elements


@pytest.mark.gpu
def test_on_a_gpu_levels_are_the_same_and_nan_is_refused() -> None:
    for shape in SHAPES:
        for dtype in DTYPES:
            images = awkward(shape, dtype)
            assert torch.equal(quantize(images.cuda()).cpu(), quantize(images))
            assert torch.equal(pixels(images.cuda()).cpu(), pixels(images))
    images[-1, -1, -1, -1] = math.nan
    for function in (quantize, pixels):
        with pytest.raises(ValueError, match="NaN"):
            function(images.cuda())
