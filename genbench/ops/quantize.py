"""From the generator's range to 8-bit pixels: the one place where images are quantised.

    k = round(127.5 (x + 1)) clipped to 0 ... 255,    x in [-1, 1] -> k in {0, ..., 255}

Ties go to the even neighbour (IEEE 754's default, what `torch.round` does), so neither direction is
favoured: x = 0 becomes 128 and not 127. Clipping comes after rounding, which gives the same as before it.
Samples, their statistics and the training images' statistics all meet in this grid: x(k) = k / 127.5 - 1 is
mapped back to k.

On a GPU a kernel writes a flag beside the levels where it met NaN, in the same pass. Reading those four bytes
is all that is waited for, after the kernel and not in it; whoever fetches the images would have waited too.
"""

from __future__ import annotations

import torch
from torch import Tensor

QUANTISER = "round-half-even-127.5"
"""Recorded with every metric; changes whenever `quantize` could return another value."""
FUSED = (torch.float32, torch.bfloat16, torch.float16)
"""What the kernel reads; it computes in float32."""


def quantize(images: Tensor) -> Tensor:
    """uint8 of the same shape from floating-point `images` in [-1, 1]; values beyond are clipped.

    Computed in float32 (float64 for float64 input), so bfloat16 samples are widened before they are scaled.
    Raises ValueError for input that is not floating point (it is quantised already, or has another range) and
    for NaN, which has no grey level.
    """
    if _fused(images):
        from genbench.ops.kernels.quantize import levels

        return _without_nan(*levels(images))
    wide = images if images.dtype == torch.float64 else images.float()
    found = wide.add(1.0).mul_(127.5).round_().clamp_(0.0, 255.0)
    return _without_nan(found.to(torch.uint8), found.isnan().any())


def pixels(images: Tensor) -> Tensor:
    """The levels of `quantize` as pictures are stored: uint8 [B, H, W, C] of images [B, C, H, W].

    One pass on a GPU; nothing is moved where the images are in channels_last order.
    """
    if images.movedim(1, -1).is_contiguous() or not _fused(images):
        return quantize(images).movedim(1, -1).contiguous()
    from genbench.ops.kernels.quantize import interleaved

    return _without_nan(*interleaved(images))


def dequantize(levels: Tensor) -> Tensor:
    """float32 in [-1, 1] from uint8: k / 127.5 - 1, of which `quantize` is the inverse."""
    return levels.float().div_(127.5).sub_(1.0)


def _fused(images: Tensor) -> bool:
    """Whether a kernel does it; ValueError for what has no levels."""
    if not images.is_floating_point():
        raise ValueError(f"quantize takes floating-point images in [-1, 1], found {images.dtype}")
    return images.is_cuda and images.dtype in FUSED


def _without_nan(levels: Tensor, nan: Tensor) -> Tensor:
    if bool(nan):
        raise ValueError("images contain NaN, which has no grey level; the sampler or the model diverged")
    return levels
