"""Quantisation: the inverse of k / 127.5 - 1, ties to even, clipping at both ends."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from genbench.ops.quantize import QUANTISER, dequantize, quantize


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
