"""Two neighbouring order statistics of each image's |x|, of which a quantile is between, in one pass.

A program holds one image. The bits of floats above zero are ordered like their values, so the n-th smallest
is found bit by bit from the highest: a bit is set where at most n values are below what it gives. No value is
moved, and nothing is sorted.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.library import triton_op

from genbench.ops.kernels.launch import traceable


@triton.jit
def statistics_kernel(x, out, size, images, below, BLOCK: tl.constexpr):
    """out [2, images]: the value with `below` others before it in order, and the one after it."""
    image = tl.program_id(0).to(tl.int64)
    place = tl.arange(0, BLOCK)
    real = place < size
    value = tl.load(x + image * size + place, mask=real, other=0.0).to(tl.float32)
    # Without its sign; what is beyond the image is above everything, NaN too.
    bits = tl.where(real, value.to(tl.int32, bitcast=True) & 0x7FFFFFFF, 0x7FFFFFFF)
    found = tl.zeros((), tl.int32)
    for turn in range(31):
        tried = found | (1 << (30 - turn))
        found = tl.where(tl.sum((bits < tried).to(tl.int32), axis=0) <= below, tried, found)
    after = tl.min(tl.where(bits > found, bits, 0x7FFFFFFF), axis=0)
    # It is the same value again where there are more of it, or no other.
    last = below + 1 >= size
    again = tl.sum((bits <= found).to(tl.int32), axis=0) > below + 1
    after = tl.where(again | last, found, after)
    tl.store(out + image, found.to(tl.float32, bitcast=True))
    tl.store(out + images + image, after.to(tl.float32, bitcast=True))


@triton_op("genbench::neighbours_of_place", mutates_args=())
def neighbours_of_place(x: Tensor, below: int) -> Tensor:
    """float32 [2, B]: of each row's |x|, x [B, N], the one with `below` others before it and the next.

    Of the last there is no next: it stands twice.
    """
    images, size = x.shape
    out = torch.empty(2, images, dtype=torch.float32, device=x.device)
    block = triton.next_power_of_2(size)
    traceable(statistics_kernel)[(images,)](
        x, out, size, images, below, BLOCK=block, num_warps=min(16, max(1, block // 512))
    )
    return out
