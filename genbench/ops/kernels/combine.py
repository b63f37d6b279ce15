"""The one update of samplers in one kernel; the formula is in genbench/ops/combine.py.

    inner = clamp(sum_i a_i y_i)            where there is one
    out   = sum_i k_i y_i + c inner + n z

A program has a block of one image's elements, a thread whole counter blocks of four, so that reads and writes
are of 16 bytes and every word of Philox is used. Numbers are float32 inside, whatever the tensors are.

Coefficients, the step and the seed lie behind pointers: a CUDA graph replays the kernel with what is there.
The table is float32 [steps, rows, 1 or B], its rows

    k_1 ... k_N, n, c, bound, a_1 ... a_N

and the clock int64 [4] says which step of the table it is, the seed, and the noise's step and stream.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.library import triton_op

from genbench.ops.combine import ONE, Update, clamped
from genbench.ops.kernels.launch import traceable
from genbench.ops.kernels.normals import UNIT, normals
from genbench.ops.random import Counter

MOST = 6
"""Tensors that one kernel takes: a step of third-order UniPC's corrector has six."""
ZERO = torch.zeros((), dtype=torch.float64)


@triton.jit
def step_kernel(
    out, inner, y0, y1, y2, y3, y4, y5, table, clock, index,
    size, images, stride0, stride1, stride2, stride3, stride4, stride5,
    COUNT: tl.constexpr, PER_IMAGE: tl.constexpr, INNER: tl.constexpr, BOUNDED: tl.constexpr,
    NOISE: tl.constexpr, KEEP: tl.constexpr,
    BLOCK: tl.constexpr, TURNS: tl.constexpr, EVEN: tl.constexpr, FAST: tl.constexpr,
):  # fmt: skip
    """TURNS blocks of one image; EVEN says that they end where it does."""
    image = tl.program_id(0).to(tl.int64)
    first = tl.program_id(1) * TURNS
    ROWS: tl.constexpr = 2 * COUNT + 3 if INNER else COUNT + 1
    columns = images if PER_IMAGE else 1
    table += tl.load(clock) * ROWS * columns
    if PER_IMAGE:
        table += image
    tensors = (
        y0 + image * stride0, y1 + image * stride1, y2 + image * stride2, y3 + image * stride3,
        y4 + image * stride4, y5 + image * stride5,
    )  # fmt: skip
    # All that a thread needs once is read before its blocks, in which a store would make it be read again.
    weights = ()
    inner_weights = ()
    for i in tl.static_range(COUNT):
        weights += (tl.load(table + i * columns),)
        if INNER:
            inner_weights += (tl.load(table + (COUNT + 3 + i) * columns),)
    if NOISE:
        seed = tl.load(clock + 1).to(tl.uint32)
        step = tl.load(clock + 2).to(tl.uint32)
        stream = tl.load(clock + 3).to(tl.uint32)
        key = tl.load(index + image).to(tl.uint32)
        deviation = tl.load(table + COUNT * columns) * UNIT
    if INNER:
        share = tl.load(table + (COUNT + 1) * columns)
        bound = tl.load(table + (COUNT + 2) * columns)

    for turn in tl.static_range(TURNS):
        offset = (first + turn) * BLOCK + tl.arange(0, BLOCK)
        real = None if EVEN else offset < size
        total = tl.zeros((BLOCK,), tl.float32)
        estimate = tl.zeros((BLOCK,), tl.float32)
        for i in tl.static_range(COUNT):
            y = tl.load(tensors[i] + offset, mask=real).to(tl.float32)
            # Fused explicitly: whether a compiler does so by itself changes with Triton's version.
            total = tl.fma(y, weights[i], total)
            if INNER:
                estimate = tl.fma(y, inner_weights[i], estimate)
        if INNER:
            if BOUNDED:
                # NaN stays NaN, as in torch: a sampler that diverged must not look like one that did not.
                estimate = tl.minimum(estimate, bound, propagate_nan=tl.PropagateNan.ALL)
                estimate = tl.maximum(estimate, -bound, propagate_nan=tl.PropagateNan.ALL)
            if KEEP:
                tl.store(inner + image * size + offset, estimate.to(inner.dtype.element_ty), mask=real)
            total = tl.fma(estimate, share, total)
        if NOISE:
            block = ((first + turn) * (BLOCK // 4)).to(tl.uint32)
            total = tl.fma(normals(block, step, stream, key, seed, BLOCK, FAST), deviation, total)
        tl.store(out + image * size + offset, total.to(out.dtype.element_ty), mask=real)


@triton_op("genbench::combine", mutates_args={"out", "inner"})
def launch(
    out: Tensor,
    inner: Tensor | None,
    tensors: Sequence[Tensor],
    table: Tensor,
    clock: Tensor,
    index: Tensor | None,
    summed: bool,
    bounded: bool,
) -> None:
    """One update into `out`, which may be one of the tensors; see the head of this file.

    out: [B, ...], contiguous, as is inner (the inner sum), where it is wanted; tensors: up to MOST, [B, D]
    with any distance between images; table: float32, contiguous; index: int64 [B], the images' numbers, or
    None for no noise; summed: is there an inner sum; bounded: has it a bound?
    """
    images, size = len(out), math.prod(out.shape[1:])
    warps = 1 if size <= 128 else 2
    block = 128 * warps  # four elements a thread: 16 bytes of float32
    turns = min(4, triton.cdiv(size, block))
    # What a variant leaves alone points to the table, which none writes to: torch.compile looks for aliases.
    pointers = [*tensors, *[table] * (MOST - len(tensors))]
    strides = [each.stride(0) for each in pointers]
    traceable(step_kernel)[(images, triton.cdiv(size, block * turns))](
        out, table if inner is None else inner, *pointers, table, clock,
        clock if index is None else index, size, images, *strides,
        COUNT=len(tensors), PER_IMAGE=table.shape[-1] > 1, INNER=summed, BOUNDED=bounded,
        NOISE=index is not None, KEEP=inner is not None,
        BLOCK=block, TURNS=turns, EVEN=size % (block * turns) == 0, FAST=out.is_cuda, num_warps=warps,
    )  # fmt: skip


def rows(
    weights: Sequence[Tensor],
    noise: Tensor | None = None,
    share: Tensor = ONE,
    bound: Tensor | None = None,
    inner_weights: Sequence[Tensor] = (),
) -> Tensor:
    """One step of the table, float32 [rows, 1 or B], from coefficients of shape [] or [B] on any devices."""
    found = [*weights, ZERO if noise is None else noise]
    if inner_weights:
        found += [share, ZERO if bound is None else bound, *inner_weights]
    place = next((each.device for each in found if each.is_cuda), found[0].device)
    # One copy to the GPU where all coefficients are numbers of the host, as on a grid of times; and none that
    # the host waits for.
    there = [each.double().to(place, non_blocking=True).reshape(-1) for each in found]
    columns = torch.broadcast_tensors(*there)
    return torch.stack(columns).float()


def normal(counter: Counter, shape: Sequence[int]) -> Tensor:
    """Noise alone, float32 [B, *shape]."""
    index = counter.index
    out = torch.empty(len(index), *shape, device=index.device)
    clock = torch.tensor([0, counter.seed, counter.step, counter.stream])
    table = rows((), ONE)[None].to(index.device, non_blocking=True)
    launch(out, None, [], table, clock.to(index.device, non_blocking=True), index, False, False)
    return out


def fused(update: Update, noise: Tensor | None = None, counter: Counter | None = None) -> Tensor:
    """`update` and its noise by the kernel; where it has more than MOST tensors, in several goes."""
    inner = update.inner
    tensors = list(update.tensors)
    if inner is not None:
        tensors += [each for each in inner.tensors if all(each is not known for known in tensors)]
    if len(tensors) > MOST:
        return _in_parts(update, noise, counter)
    weights = [_weight(each, update.weights, update.tensors) for each in tensors]
    bound, inside = None, []
    if inner is not None:
        bound = inner.bound
        inside = [_weight(each, inner.coefficients, inner.tensors) for each in tensors]
    first = tensors[0]
    table = rows(weights, noise, share=update.share, bound=bound, inner_weights=inside)
    out = torch.empty(first.shape, dtype=first.dtype, device=first.device)
    kept = torch.empty_like(out) if inner is not None and update.keep is inner else None
    clock = [0, 0, 0, 0] if counter is None else [0, counter.seed, counter.step, counter.stream]
    launch(
        out,
        kept,
        [each.reshape(len(each), -1) for each in tensors],
        table.to(first.device, non_blocking=True),
        torch.tensor(clock).to(first.device, non_blocking=True),
        None if counter is None else counter.index,
        inner is not None,
        bound is not None,
    )
    if inner is not None and kept is not None:
        inner.found(kept)
    return out


def _weight(tensor: Tensor, weights: Sequence[Tensor], tensors: Sequence[Tensor]) -> Tensor:
    """What `tensor` weighs among `tensors`: nothing where it is not one of them."""
    return next((by for by, each in zip(weights, tensors, strict=True) if each is tensor), ZERO)


def _in_parts(update: Update, noise: Tensor | None, counter: Counter | None) -> Tensor:
    inner = update.inner
    if inner is not None:
        # Its values are one tensor in place of several.
        if len(inner.tensors) > MOST:
            whole = fused(Update(inner.coefficients, inner.tensors))
            inner.found(whole if inner.bound is None else clamped(whole, inner.bound).tensor())
        update.add(update.share, inner.tensor())
        update.inner = None
        return fused(update, noise, counter)
    part = fused(Update(update.weights[:MOST], update.tensors[:MOST]))
    return fused(Update([ONE, *update.weights[MOST:]], [part, *update.tensors[MOST:]]), noise, counter)
