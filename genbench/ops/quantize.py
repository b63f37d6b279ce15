"""From the generator's range to 8-bit pixels: the one place where images are quantised.

    k = round(127.5 (x + 1)) clipped to 0 ... 255,    x in [-1, 1] -> k in {0, ..., 255}

Ties go to the even neighbour (IEEE 754's default, what `torch.round` does), so neither direction is
favoured: x = 0 becomes 128 and not 127. Clipping comes after rounding, which gives the same as before it.
Samples, their statistics and the training images' statistics all meet in this grid: x(k) = k / 127.5 - 1 is
mapped back to k.
"""

from __future__ import annotations

import torch
from torch import Tensor

QUANTISER = "round-half-even-127.5"
"""Recorded with every metric; changes whenever `quantize` could return another value."""


def quantize(images: Tensor) -> Tensor:
    """uint8 of the same shape from floating-point `images` in [-1, 1]; values beyond are clipped.

    Computed in float32 (float64 for float64 input), so bfloat16 samples are widened before they are scaled.
    Raises ValueError for input that is not floating point (it is quantised already, or has another range) and
    for NaN, which has no grey level.
    """
    if not images.is_floating_point():
        raise ValueError(f"quantize takes floating-point images in [-1, 1], found {images.dtype}")
    wide = images if images.dtype == torch.float64 else images.float()
    levels = wide.add(1.0).mul_(127.5).round_().clamp_(0.0, 255.0)
    if bool(levels.isnan().any()):
        raise ValueError("images contain NaN, which has no grey level; the sampler or the model diverged")
    return levels.to(torch.uint8)


def dequantize(levels: Tensor) -> Tensor:
    """float32 in [-1, 1] from uint8: k / 127.5 - 1, of which `quantize` is the inverse."""
    return levels.float().div_(127.5).sub_(1.0)
