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
"""Categories that make one block together."""
LOOPED = 256
"""Categories of a block where there are more."""
ELEMENTS = 8192
"""Of a program's block: 32 a thread of 256; half as many where blocks follow each other."""


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
    # The sum of a plain load, added in a loop, is what Triton 3.6 rearranges, and fails at where `before` is
    # used above too; a choice in between, which changes no number, keeps it from trying.
    before += tl.sum(tl.where(possible, weights, 0.0), axis=1)
    return before, tl.minimum(chosen, here), last


@triton.jit
def block(law, place, inside, peak, inverse_temperature, LOGITS: tl.constexpr):
    """Weights of a block, and the maximum of its logits with those before."""
    if not LOGITS:
        return tl.load(law + place, mask=inside, other=0.0).to(tl.float32), peak
    x = tl.load(law + place, mask=inside, other=float("-inf")).to(tl.float32) * inverse_temperature
    peak = tl.maximum(peak, tl.max(x, axis=1))
    return tl.exp(x - peak[:, None]), peak


@triton.jit
def categorical_kernel(
    law, uniform, decided, out,
    rows, categories, image_stride, row_stride, category_stride, inverse_temperature,
    ROWS: tl.constexpr, BLOCK: tl.constexpr, WHOLE: tl.constexpr, LOGITS: tl.constexpr,
    SKIPPING: tl.constexpr, ACROSS: tl.constexpr,
):  # fmt: skip
    """Draws of ROWS of an image's rows; 0 where decided.

    Of decided rows that lie along memory nothing is read. Across it, neighbours share what is read at once,
    and nothing is read where all rows of a program are decided.
    """
    image = tl.program_id(0).to(tl.int64)
    row = tl.program_id(1) * ROWS + tl.arange(0, ROWS)
    wanted = row < rows
    read = wanted
    if SKIPPING:
        wanted &= tl.load(decided + image * rows + row, mask=wanted, other=1) == 0
        categories *= tl.max(wanted.to(tl.int32), axis=0)
        if not ACROSS:
            read = wanted
    u = tl.load(uniform + image * rows + row, mask=wanted, other=0.5).to(tl.float32)
    start = image * image_stride + row.to(tl.int64) * row_stride
    lane = tl.arange(0, BLOCK)
    peak = tl.full((ROWS,), -3e38, tl.float32)  # from -inf nothing could be taken away
    zero = tl.zeros((ROWS,), tl.float32)
    chosen = tl.full((ROWS,), 1073741824, tl.int32)
    last = tl.full((ROWS,), -1, tl.int32)

    if WHOLE:
        inside = read[:, None] & (lane < categories)[None, :]
        place = start[:, None] + lane[None, :] * category_stride
        weights, peak = block(law, place, inside, peak, inverse_temperature, LOGITS)
        total = tl.sum(weights, axis=1)
        _, chosen, last = drawn(weights, lane, zero, u * total, chosen, last)
    else:
        total = zero
        for first in range(0, categories, BLOCK):
            inside = read[:, None] & (first + lane < categories)[None, :]
            place = start[:, None] + (first + lane).to(tl.int64)[None, :] * category_stride
            known = peak
            weights, peak = block(law, place, inside, peak, inverse_temperature, LOGITS)
            # What was summed under a lower maximum counts for less.
            total = total * tl.exp(known - peak) + tl.sum(weights, axis=1)
        before = zero
        for first in range(0, categories, BLOCK):
            inside = read[:, None] & (first + lane < categories)[None, :]
            place = start[:, None] + (first + lane).to(tl.int64)[None, :] * category_stride
            weights, peak = block(law, place, inside, peak, inverse_temperature, LOGITS)
            before, chosen, last = drawn(weights, first + lane, before, u * total, chosen, last)

    found = tl.where(wanted, tl.minimum(chosen, tl.maximum(last, 0)), 0)
    tl.store(out + image * rows + row, found.to(tl.int64), mask=row < rows)


@triton_op("genbench::categorical", mutates_args=())
def draw(
    law: Tensor, uniform: Tensor, decided: Tensor | None, logits: bool, inverse_temperature: float
) -> Tensor:
    """int64 [...] from weights, or logits times `inverse_temperature`, [..., V]; as `ops.categorical`."""
    categories = law.shape[-1]
    # A view wherever the law's layout is one of the two above.
    apart = law.ndim > 2 and law.stride(-1) != 1
    flat = law.reshape(law.shape[0] if apart else 1, -1, categories)
    out = torch.empty(uniform.shape, dtype=torch.int64, device=law.device)
    images, rows = flat.shape[:2]
    if out.numel() == 0:
        return out
    whole = categories <= LARGEST
    block = triton.next_power_of_2(categories) if whole else LOOPED
    together = min((ELEMENTS if whole else ELEMENTS // 2) // block, triton.next_power_of_2(rows))
    traceable(categorical_kernel)[(images, triton.cdiv(rows, together))](
        flat, uniform.contiguous(), None if decided is None else decided.contiguous().view(torch.uint8), out,
        rows, categories, *flat.stride(), inverse_temperature,
        ROWS=together, BLOCK=block, WHOLE=whole, LOGITS=logits, SKIPPING=decided is not None,
        ACROSS=flat.stride(2) != 1, num_warps=8,
    )  # fmt: skip
    return out
