"""One draw a row from V weights or logits, in float32: a running sum over blocks of categories.

A category is drawn where it has probability and is the first whose running sum is above u times the whole, or
else the last that has any; so what rounding does to sums never draws what cannot be. With V in one block a
row is read once. Otherwise a first pass finds the whole, with the running maximum that logits are measured
from, and a second finds the category.

Rows may lie along memory, each with its categories side by side, or across it, as a network's channels do:
row r of image b has category v at b * image_stride + r * row_stride + v * category_stride.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.library import triton_op

from genbench.ops.kernels.launch import traceable

LARGEST = 1024
"""Categories of one block: all of them up to here."""
ELEMENTS = 4096
"""Of a program's block: 32 a thread."""


@triton.jit
def drawn(weights, category, before, reached, chosen, last):
    """The choice after a block of weights [rows, block]: (sum so far, chosen so far, last with any weight).

    chosen is V's upper bound 2^30 until a running sum is above what is to be reached.
    """
    none: tl.constexpr = 1073741824
    sums = before[:, None] + tl.cumsum(weights, axis=1)
    possible = weights > 0
    here = tl.min(tl.where(possible & (sums > reached[:, None]), category[None, :], none), axis=1)
    last = tl.maximum(last, tl.max(tl.where(possible, category[None, :], -1), axis=1))
    return before + tl.sum(weights, axis=1), tl.minimum(chosen, here), last


@triton.jit
def block(law, place, inside, peak, inverse_temperature, LOGITS: tl.constexpr):
    """Weights of a block, and the maximum of its logits with those before."""
    if not LOGITS:
        return tl.load(law + place, mask=inside, other=0.0).to(tl.float32), peak
    x = tl.load(law + place, mask=inside, other=float("-inf")).to(tl.float32) * inverse_temperature
    peak = tl.maximum(peak, tl.max(x, axis=1))
    # Rows without any category yet have -inf, from which nothing can be taken away.
    return tl.exp(x - tl.where(peak > float("-inf"), peak, 0.0)[:, None]), peak


@triton.jit
def categorical_kernel(
    law, uniform, decided, out,
    rows, categories, image_stride, row_stride, category_stride, inverse_temperature,
    ROWS: tl.constexpr, BLOCK: tl.constexpr, WHOLE: tl.constexpr, LOGITS: tl.constexpr,
    SKIPPING: tl.constexpr,
):  # fmt: skip
    """Draws of ROWS of an image's rows; 0 where decided, of which nothing else is read."""
    image = tl.program_id(0).to(tl.int64)
    row = tl.program_id(1) * ROWS + tl.arange(0, ROWS)
    wanted = row < rows
    if SKIPPING:
        wanted &= tl.load(decided + image * rows + row, mask=wanted, other=1) == 0
    u = tl.load(uniform + image * rows + row, mask=wanted, other=0.5).to(tl.float32)
    start = image * image_stride + row.to(tl.int64) * row_stride
    lane = tl.arange(0, BLOCK)
    peak = tl.full((ROWS,), float("-inf"), tl.float32)
    zero = tl.zeros((ROWS,), tl.float32)
    chosen = tl.full((ROWS,), 1073741824, tl.int32)
    last = tl.full((ROWS,), -1, tl.int32)

    if WHOLE:
        inside = wanted[:, None] & (lane < categories)[None, :]
        place = start[:, None] + lane[None, :] * category_stride
        weights, peak = block(law, place, inside, peak, inverse_temperature, LOGITS)
        total = tl.sum(weights, axis=1)
        _, chosen, last = drawn(weights, lane, zero, u * total, chosen, last)
    else:
        total = zero
        for first in range(0, categories, BLOCK):
            inside = wanted[:, None] & (first + lane < categories)[None, :]
            place = start[:, None] + (first + lane).to(tl.int64)[None, :] * category_stride
            known = peak
            weights, peak = block(law, place, inside, peak, inverse_temperature, LOGITS)
            if LOGITS:
                # What was summed under a lower maximum counts for less.
                total *= tl.where(peak > known, tl.exp(known - peak), 1.0)
            total += tl.sum(weights, axis=1)
        before = zero
        for first in range(0, categories, BLOCK):
            inside = wanted[:, None] & (first + lane < categories)[None, :]
            place = start[:, None] + (first + lane).to(tl.int64)[None, :] * category_stride
            weights, peak = block(law, place, inside, peak, inverse_temperature, LOGITS)
            before, chosen, last = drawn(weights, first + lane, before, u * total, chosen, last)

    found = tl.where(wanted, tl.minimum(chosen, tl.maximum(last, 0)), 0)
    tl.store(out + image * rows + row, found.to(tl.int64), mask=row < rows)
