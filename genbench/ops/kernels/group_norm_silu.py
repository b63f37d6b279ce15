"""Group normalisation with SiLU in one kernel each way; the formula is in genbench/ops/group_norm_silu.py.

A program has one image and a few of its groups: K channels, those of a group side by side and padded to a
power of two, by blocks of positions. Where all positions fit into one block, x is read once. In channels_last
order a program has as many groups as make reads of a whole sector.

The way back, with p = dy silu'(z), z = a x^ + b, and <.> the mean over a group:

    dx = (a p - <a p> - x^ <a p x^>) / deviation

The sums of p and of p x^ over positions are all that the other gradients need. A program stores those of its
channels, and a second kernel adds them over images in a fixed order: no atomic sums, the same bits each time.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.library import triton_op

from genbench.ops.group_norm_silu import reference
from genbench.ops.kernels.launch import traceable

SECTOR = 32
"""Bytes of memory read at once, whatever is asked for: so many channels a program has in channels_last."""
LARGEST = 16_384
"""Elements that a program keeps at once, where an image's fit: 32 a thread of 512."""
LOOPED = 4096
"""Elements of a block where they do not: 16 a thread of 256, so that no register is spilt."""
ROWS, COLUMNS = 128, 16
"""Images by channels that the sums over images are read in."""


@triton.jit
def channels_of(D: tl.constexpr, PADDED: tl.constexpr, GROUPS: tl.constexpr):
    """This program's channels [K], and which of them are not padding."""
    lane = tl.arange(0, GROUPS * PADDED)
    first = tl.program_id(1) * GROUPS
    if D == PADDED:
        return first * D + lane, lane < GROUPS * PADDED
    return (first + lane // PADDED) * D + lane % PADDED, lane % PADDED < D


@triton.jit
def over_group(values, PADDED: tl.constexpr, GROUPS: tl.constexpr):
    """The sum over the channels of a channel's group, for each of [K]."""
    sums = tl.sum(tl.reshape(values, (GROUPS, PADDED)), axis=1)
    return tl.reshape(tl.broadcast_to(sums[:, None], (GROUPS, PADDED)), (GROUPS * PADDED,))


@triton.jit
def places(channel, real, start, channels, positions, BLOCK: tl.constexpr, CHANNELS_LAST: tl.constexpr):
    """Where in an image the elements [K, BLOCK] from position `start` are, and which of them exist."""
    position = start + tl.arange(0, BLOCK)
    inside = real[:, None] & (position < positions)[None, :]
    if CHANNELS_LAST:
        return channel[:, None] + position[None, :] * channels, inside
    return channel[:, None] * positions + position[None, :], inside


@triton.jit
def affine(channel, real, image, weight, bias, scale, shift, scale_stride, shift_stride, SCALED: tl.constexpr, SHIFTED: tl.constexpr):  # fmt: skip  # noqa: E501
    """a and b of the formula, float32 [K]."""
    a = tl.load(weight + channel, mask=real, other=0.0).to(tl.float32)
    b = tl.load(bias + channel, mask=real, other=0.0).to(tl.float32)
    if SCALED:
        factor = 1.0 + tl.load(scale + image * scale_stride + channel, mask=real, other=0.0).to(tl.float32)
        a *= factor
        b *= factor
    if SHIFTED:
        b += tl.load(shift + image * shift_stride + channel, mask=real, other=0.0).to(tl.float32)
    return a, b


@triton.jit
def activated(normal, a, b, ACTIVATE: tl.constexpr):
    """y of what is normalised, a and b one number a channel."""
    z = normal * a[:, None] + b[:, None]
    return z * tl.sigmoid(z) if ACTIVATE else z


@triton.jit
def before(dy, normal, a, b, ACTIVATE: tl.constexpr):
    """p: the gradient in z, of the gradient in y."""
    if not ACTIVATE:
        return dy
    z = normal * a[:, None] + b[:, None]
    gate = tl.sigmoid(z)
    return dy * gate * (1.0 + z * (1.0 - gate))


@triton.jit
def forward_kernel(
    x, out, weight, bias, scale, shift, mean, rstd,
    channels, positions, scale_stride, shift_stride, epsilon,
    D: tl.constexpr, PADDED: tl.constexpr, GROUPS: tl.constexpr, BLOCK: tl.constexpr, WHOLE: tl.constexpr,
    CHANNELS_LAST: tl.constexpr, SCALED: tl.constexpr, SHIFTED: tl.constexpr, ACTIVATE: tl.constexpr,
):  # fmt: skip
    """y, and the mean and 1 / deviation of each group, of one image's GROUPS groups of D channels."""
    image = tl.program_id(0).to(tl.int64)
    channel, real = channels_of(D, PADDED, GROUPS)
    x += image * channels * positions
    out += image * channels * positions
    a, b = affine(
        channel, real, image, weight, bias, scale, shift, scale_stride, shift_stride, SCALED, SHIFTED
    )
    share = 1.0 / (positions * D).to(tl.float32)

    if WHOLE:
        offsets, inside = places(channel, real, 0, channels, positions, BLOCK, CHANNELS_LAST)
        values = tl.load(x + offsets, mask=inside, other=0.0).to(tl.float32)
        centre = over_group(tl.sum(values, axis=1), PADDED, GROUPS) * share
        centred = tl.where(inside, values - centre[:, None], 0.0)
        variance = over_group(tl.sum(centred * centred, axis=1), PADDED, GROUPS) * share
        inverse = 1.0 / tl.sqrt(variance + epsilon)
        y = activated(centred * inverse[:, None], a, b, ACTIVATE)
        tl.store(out + offsets, y.to(out.dtype.element_ty), mask=inside)
    else:
        total = tl.zeros((GROUPS * PADDED, BLOCK), tl.float32)
        for start in range(0, positions, BLOCK):
            offsets, inside = places(channel, real, start, channels, positions, BLOCK, CHANNELS_LAST)
            total += tl.load(x + offsets, mask=inside, other=0.0).to(tl.float32)
        centre = over_group(tl.sum(total, axis=1), PADDED, GROUPS) * share
        squares = tl.zeros((GROUPS * PADDED, BLOCK), tl.float32)
        for start in range(0, positions, BLOCK):
            offsets, inside = places(channel, real, start, channels, positions, BLOCK, CHANNELS_LAST)
            values = tl.load(x + offsets, mask=inside, other=0.0).to(tl.float32)
            centred = tl.where(inside, values - centre[:, None], 0.0)
            squares += centred * centred
        variance = over_group(tl.sum(squares, axis=1), PADDED, GROUPS) * share
        inverse = 1.0 / tl.sqrt(variance + epsilon)
        for start in range(0, positions, BLOCK):
            offsets, inside = places(channel, real, start, channels, positions, BLOCK, CHANNELS_LAST)
            values = tl.load(x + offsets, mask=inside, other=0.0).to(tl.float32)
            y = activated((values - centre[:, None]) * inverse[:, None], a, b, ACTIVATE)
            tl.store(out + offsets, y.to(out.dtype.element_ty), mask=inside)

    # Every channel of a group has the group's numbers; the first of them stores.
    group = image * (channels // D) + channel // D
    first = real & (channel % D == 0)
    tl.store(mean + group, centre, mask=first)
    tl.store(rstd + group, inverse, mask=first)


@triton.jit
def backward_kernel(
    dy, x, dx, weight, bias, scale, shift, mean, rstd, sums, products,
    channels, positions, scale_stride, shift_stride,
    D: tl.constexpr, PADDED: tl.constexpr, GROUPS: tl.constexpr, BLOCK: tl.constexpr, WHOLE: tl.constexpr,
    CHANNELS_LAST: tl.constexpr, SCALED: tl.constexpr, SHIFTED: tl.constexpr, ACTIVATE: tl.constexpr,
):  # fmt: skip
    """dx, and over positions the sums of p and of p x^, float32 [B, C] each."""
    image = tl.program_id(0).to(tl.int64)
    channel, real = channels_of(D, PADDED, GROUPS)
    x += image * channels * positions
    dy += image * channels * positions
    dx += image * channels * positions
    a, b = affine(
        channel, real, image, weight, bias, scale, shift, scale_stride, shift_stride, SCALED, SHIFTED
    )
    share = 1.0 / (positions * D).to(tl.float32)
    group = image * (channels // D) + channel // D
    centre = tl.load(mean + group, mask=real, other=0.0)
    inverse = tl.load(rstd + group, mask=real, other=0.0)

    if WHOLE:
        offsets, inside = places(channel, real, 0, channels, positions, BLOCK, CHANNELS_LAST)
        values = tl.load(x + offsets, mask=inside, other=0.0).to(tl.float32)
        slope = tl.load(dy + offsets, mask=inside, other=0.0).to(tl.float32)
        normal = (values - centre[:, None]) * inverse[:, None]
        p = before(slope, normal, a, b, ACTIVATE)  # zero outside, because dy is
        of_p, of_product = tl.sum(p, axis=1), tl.sum(p * normal, axis=1)
        level = over_group(a * of_p, PADDED, GROUPS) * share
        tilt = over_group(a * of_product, PADDED, GROUPS) * share
        d = (p * a[:, None] - level[:, None] - normal * tilt[:, None]) * inverse[:, None]
        tl.store(dx + offsets, d.to(dx.dtype.element_ty), mask=inside)
    else:
        total = tl.zeros((GROUPS * PADDED, BLOCK), tl.float32)
        product = tl.zeros((GROUPS * PADDED, BLOCK), tl.float32)
        for start in range(0, positions, BLOCK):
            offsets, inside = places(channel, real, start, channels, positions, BLOCK, CHANNELS_LAST)
            values = tl.load(x + offsets, mask=inside, other=0.0).to(tl.float32)
            slope = tl.load(dy + offsets, mask=inside, other=0.0).to(tl.float32)
            normal = (values - centre[:, None]) * inverse[:, None]
            p = before(slope, normal, a, b, ACTIVATE)
            total += p
            product += p * normal
        of_p, of_product = tl.sum(total, axis=1), tl.sum(product, axis=1)
        level = over_group(a * of_p, PADDED, GROUPS) * share
        tilt = over_group(a * of_product, PADDED, GROUPS) * share
        for start in range(0, positions, BLOCK):
            offsets, inside = places(channel, real, start, channels, positions, BLOCK, CHANNELS_LAST)
            values = tl.load(x + offsets, mask=inside, other=0.0).to(tl.float32)
            slope = tl.load(dy + offsets, mask=inside, other=0.0).to(tl.float32)
            normal = (values - centre[:, None]) * inverse[:, None]
            p = before(slope, normal, a, b, ACTIVATE)
            d = (p * a[:, None] - level[:, None] - normal * tilt[:, None]) * inverse[:, None]
            tl.store(dx + offsets, d.to(dx.dtype.element_ty), mask=inside)

    tl.store(sums + image * channels + channel, of_p, mask=real)
    tl.store(products + image * channels + channel, of_product, mask=real)


@triton.jit
def parameters_kernel(
    sums, products, weight, bias, scale, dweight, dbias, dscale, dshift,
    batch, channels, scale_stride,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, SCALED: tl.constexpr, SHIFTED: tl.constexpr,
):  # fmt: skip
    """Gradients of all that is not x, of COLUMNS channels; images are added in one order, always the same."""
    channel = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)
    real = channel < channels
    w = tl.load(weight + channel, mask=real, other=0.0).to(tl.float32)[None, :]
    v = tl.load(bias + channel, mask=real, other=0.0).to(tl.float32)[None, :]
    of_weight = tl.zeros((ROWS, COLUMNS), tl.float32)
    of_bias = tl.zeros((ROWS, COLUMNS), tl.float32)
    for start in range(0, batch, ROWS):
        image = (start + tl.arange(0, ROWS))[:, None]
        inside = (image < batch) & real[None, :]
        place = image * channels + channel[None, :]
        p = tl.load(sums + place, mask=inside, other=0.0)
        product = tl.load(products + place, mask=inside, other=0.0)
        if SHIFTED:
            tl.store(dshift + place, p.to(dshift.dtype.element_ty), mask=inside)
        if SCALED:
            d = w * product + v * p
            tl.store(dscale + place, d.to(dscale.dtype.element_ty), mask=inside)
            told = tl.load(scale + image * scale_stride + channel[None, :], mask=inside, other=0.0)
            p *= 1.0 + told.to(tl.float32)
            product *= 1.0 + told.to(tl.float32)
        of_bias += p
        of_weight += product
    tl.store(dweight + channel, tl.sum(of_weight, axis=0).to(dweight.dtype.element_ty), mask=real)
    tl.store(dbias + channel, tl.sum(of_bias, axis=0).to(dbias.dtype.element_ty), mask=real)


def plan(channels: int, groups: int, positions: int, channels_last: bool, itemsize: int) -> dict[str, Any]:
    """The constants and warps of a kernel for images of so many channels and positions."""
    size = channels // groups
    padded = triton.next_power_of_2(size)
    together = 1
    while channels_last and 2 * together * padded * itemsize <= SECTOR and groups % (2 * together) == 0:
        together *= 2
    lanes = together * padded
    block = triton.next_power_of_2(positions)
    whole = lanes * block <= LARGEST
    if not whole:
        block = max(LOOPED // lanes, 1)
    return {
        "D": size,
        "PADDED": padded,
        "GROUPS": together,
        "BLOCK": block,
        "WHOLE": whole,
        "CHANNELS_LAST": channels_last,
        "num_warps": min(max(lanes * block // 1024, 4), 16) if whole else 8,
    }


@triton_op("genbench::group_norm_silu", mutates_args=())
def forward(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    scale: Tensor | None,
    shift: Tensor | None,
    groups: int,
    epsilon: float,
    activate: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """(y, mean, 1 / deviation), the latter float32 [B, groups]; arguments as of `ops.group_norm_silu`."""
    x, channels_last = _dense(x)
    scale, shift = _rows(scale), _rows(shift)
    batch, channels = x.shape[:2]
    positions = x.shape[2:].numel()
    out = torch.empty_like(x)
    mean, rstd = (torch.empty(batch, groups, device=x.device) for _ in range(2))
    constants = plan(channels, groups, positions, channels_last, x.element_size())
    traceable(forward_kernel)[(batch, groups // constants["GROUPS"])](
        x, out, weight, bias, scale, shift, mean, rstd,
        channels, positions, _stride(scale), _stride(shift), epsilon,
        SCALED=scale is not None, SHIFTED=shift is not None, ACTIVATE=activate, **constants,
    )  # fmt: skip
    return out, mean, rstd


@triton_op("genbench::group_norm_silu_backward", mutates_args=())
def backward(
    dy: Tensor,
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    scale: Tensor | None,
    shift: Tensor | None,
    mean: Tensor,
    rstd: Tensor,
    activate: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of x, weight, bias, scale and shift, of their dtypes; of what is None, an empty tensor."""
    x, channels_last = _dense(x)
    dy = torch.empty_like(x).copy_(dy) if dy.stride() != x.stride() else dy
    scale, shift = _rows(scale), _rows(shift)
    batch, channels = x.shape[:2]
    positions, groups = x.shape[2:].numel(), mean.shape[1]
    dx = torch.empty_like(x)
    sums, products = (torch.empty(batch, channels, device=x.device) for _ in range(2))
    told = {"SCALED": scale is not None, "SHIFTED": shift is not None}
    constants = plan(channels, groups, positions, channels_last, x.element_size())
    traceable(backward_kernel)[(batch, groups // constants["GROUPS"])](
        dy, x, dx, weight, bias, scale, shift, mean, rstd, sums, products,
        channels, positions, _stride(scale), _stride(shift), ACTIVATE=activate, **told, **constants,
    )  # fmt: skip
    dweight, dbias = torch.empty_like(weight), torch.empty_like(bias)
    dscale, dshift = (
        x.new_empty(0) if each is None else each.new_empty(batch, channels) for each in (scale, shift)
    )
    traceable(parameters_kernel)[(triton.cdiv(channels, COLUMNS),)](
        sums, products, weight, bias, scale, dweight, dbias, dscale, dshift,
        batch, channels, _stride(scale), ROWS=ROWS, COLUMNS=COLUMNS, **told,
    )  # fmt: skip
    return dx, dweight, dbias, dscale, dshift


def _dense(x: Tensor) -> tuple[Tensor, bool]:
    """x with its elements in one of two orders, and whether that is channels_last."""
    if x.is_contiguous():
        return x, False
    if x.ndim == 4 and x.is_contiguous(memory_format=torch.channels_last):
        return x, True
    return x.contiguous(), False


def _rows(told: Tensor | None) -> Tensor | None:
    """scale or shift with channels side by side; rows may be apart, as parts of a wider matrix's are."""
    return told if told is None or told.stride(1) == 1 else told.contiguous()


def _stride(told: Tensor | None) -> int:
    return 0 if told is None else told.stride(0)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    x, weight, bias, scale, shift, ctx.groups, ctx.epsilon, ctx.activate = inputs
    _, mean, rstd = output
    ctx.mark_non_differentiable(mean, rstd)
    ctx.save_for_backward(x, weight, bias, scale, shift, mean, rstd)


def _gradients(ctx: Any, dy: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
    x, weight, bias, scale, shift, mean, rstd = ctx.saved_tensors
    asked = ctx.needs_input_grad[:5]
    if torch.is_grad_enabled():
        # The gradient itself will be differentiated (energies, penalties): by PyTorch's layers, again.
        y = reference(x, ctx.groups, weight, bias, ctx.epsilon, scale, shift, ctx.activate)
        inputs = [each for each, wanted in zip((x, weight, bias, scale, shift), asked, strict=True) if wanted]
        found = iter(torch.autograd.grad(y, inputs, dy, create_graph=True))
        return *(next(found) if wanted else None for wanted in asked), None, None, None
    made = backward(dy, x, weight, bias, scale, shift, mean, rstd, ctx.activate)
    return *(d if wanted else None for d, wanted in zip(made, asked, strict=True)), None, None, None


forward.register_autograd(_gradients, setup_context=_keep)
