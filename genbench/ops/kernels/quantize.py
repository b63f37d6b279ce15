"""Images to 8-bit levels in one pass, in their own order or with the channels of a pixel side by side.

Images that lie as they will be stored (grey ones, and channels_last) need no more than a change of type. Of
three planes, a thread takes 16 pixels each, packs four levels into a word, and so has the 48 bytes that these
pixels are stored in, of which it writes 16 at a time. Other numbers of channels are written byte by byte.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.library import triton_op

from genbench.ops.kernels.launch import traceable

BLOCK = 8192
"""Elements of a program that stores them as they lie."""
PACKED = 16
"""Pixels whose three levels make whole stores of 16 bytes."""
PACKS = 128
"""Packs of a program: one a thread."""


@triton.jit
def level(x):
    """The level as float32, and whether x is NaN, whose level is 0.

    The product is clipped before it is rounded, which keeps the compiler from contracting it into the sum
    below; adding and taking away 1.5 * 2^23 rounds to whole numbers, ties to even.
    """
    x = x.to(tl.float32)
    scaled = (x + 1.0) * 127.5
    clipped = tl.where(scaled > 0.0, tl.where(scaled < 255.0, scaled, 255.0), 0.0)
    return (clipped + 12582912.0) - 12582912.0, x != x


@triton.jit
def levels_kernel(images, out, nan, count, BLOCK: tl.constexpr):
    """Levels of `count` elements; 1 into `nan` where any is NaN, by whichever programs find one."""
    place = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    found, bad = level(tl.load(images + place, mask=place < count, other=0.0))
    tl.store(out + place, found.to(tl.uint8), mask=place < count)
    bad_here = tl.max(bad.to(tl.int32), axis=0)
    tl.store(nan, bad_here, mask=bad_here > 0)


@triton.jit
def planes_kernel(images, out, nan, channels, positions, BLOCK: tl.constexpr, LANES: tl.constexpr):
    """Of one image's BLOCK pixels, in planes of `positions`, any number of channels up to LANES."""
    image = tl.program_id(0).to(tl.int64) * channels * positions
    position = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)[:, None]
    channel = tl.arange(0, LANES)[None, :]
    inside = (position < positions) & (channel < channels)
    x = tl.load(images + image + channel * positions + position, mask=inside, other=0.0)
    found, bad = level(x)
    tl.store(out + image + position * channels + channel, found.to(tl.uint8), mask=inside)
    bad_here = tl.max(tl.max(bad.to(tl.int32), axis=1), axis=0)
    tl.store(nan, bad_here, mask=bad_here > 0)


@triton.jit
def quarters(x):
    """The four elements along the last two axes, of two each."""
    even, odd = tl.split(x)
    first, third = tl.split(even)
    second, fourth = tl.split(odd)
    return first, second, third, fourth


@triton.jit
def plane(images, start, place, inside):
    """The levels of one plane's packs [N, 16], as the four pixels of each quad [N, 4], and any NaN."""
    found, bad = level(tl.load(images + start + place, mask=inside, other=0.0))
    quads = tl.reshape(found.to(tl.int32), (found.shape[0], 4, 2, 2))
    first, second, third, fourth = quarters(quads)
    return first, second, third, fourth, tl.max(tl.max(bad.to(tl.int32), axis=1), axis=0)


@triton.jit
def words(a, b, c, d):
    """One word of each quad's four levels, as its four quads [N]: levels are [N, 4]."""
    return quarters(tl.reshape(a | (b << 8) | (c << 16) | (d << 24), (a.shape[0], 2, 2)))


@triton.jit
def row(a, b, c, d):
    """Four vectors [N] as one [N, 4]."""
    return tl.reshape(tl.join(tl.join(a, c), tl.join(b, d)), (a.shape[0], 4))


@triton.jit
def triples_kernel(images, out, nan, positions, count, PACKS: tl.constexpr):
    """Of images in three planes, the words of PACKS packs of 16 pixels; count: packs in all."""
    pack = tl.program_id(0).to(tl.int64) * PACKS + tl.arange(0, PACKS)
    pixel = pack * 16
    first = (pixel // positions) * 3 * positions + pixel % positions
    place = first[:, None] + tl.arange(0, 16)[None, :]
    inside = (pack < count)[:, None]
    r0, r1, r2, r3, bad_red = plane(images, 0, place, inside)
    g0, g1, g2, g3, bad_green = plane(images, positions, place, inside)
    b0, b1, b2, b3, bad_blue = plane(images, 2 * positions, place, inside)
    # Three words hold a quad: r g b r, g b r g, b r g b.
    p0, p1, p2, p3 = words(r0, g0, b0, r1)
    q0, q1, q2, q3 = words(g1, b1, r2, g2)
    s0, s1, s2, s3 = words(b2, r3, g3, b3)
    goal = out + pack[:, None] * 12 + tl.arange(0, 4)[None, :]
    tl.store(goal, row(p0, q0, s0, p1), mask=inside)
    tl.store(goal + 4, row(q1, s1, p2, q2), mask=inside)
    tl.store(goal + 8, row(s2, p3, q3, s3), mask=inside)
    bad = bad_red | bad_green | bad_blue
    tl.store(nan, bad, mask=bad > 0)


@triton_op("genbench::levels", mutates_args=())
def levels(images: Tensor) -> tuple[Tensor, Tensor]:
    """(uint8 of the shape and memory order of `images`, int32 [] that is 1 where any is NaN)."""
    last = images.ndim == 4 and images.is_contiguous(memory_format=torch.channels_last)
    dense = images if last else images.contiguous()
    out = torch.empty_like(dense, dtype=torch.uint8)
    nan = torch.zeros((), dtype=torch.int32, device=images.device)
    count = dense.numel()
    traceable(levels_kernel)[(triton.cdiv(count, BLOCK),)](dense, out, nan, count, BLOCK=BLOCK)
    return out, nan


@triton_op("genbench::interleaved_levels", mutates_args=())
def interleaved(images: Tensor) -> tuple[Tensor, Tensor]:
    """(uint8 [B, H, W, C] of images [B, C, H, W] in planes, int32 [] that is 1 where any is NaN)."""
    batch, channels, height, width = images.shape
    positions = height * width
    nan = torch.zeros((), dtype=torch.int32, device=images.device)
    dense = images.contiguous()
    if channels == 3 and positions % PACKED == 0:
        packs = batch * positions // PACKED
        words = torch.empty(12 * packs, dtype=torch.int32, device=images.device)
        traceable(triples_kernel)[(triton.cdiv(packs, PACKS),)](
            dense, words, nan, positions, packs, PACKS=PACKS
        )
        return words.view(torch.uint8).view(batch, height, width, channels), nan
    out = torch.empty(batch, height, width, channels, dtype=torch.uint8, device=images.device)
    lanes = triton.next_power_of_2(channels)
    block = min(triton.next_power_of_2(positions), max(BLOCK // lanes, 1))
    traceable(planes_kernel)[(batch, triton.cdiv(positions, block))](
        dense, out, nan, channels, positions, BLOCK=block, LANES=lanes
    )
    return out, nan
