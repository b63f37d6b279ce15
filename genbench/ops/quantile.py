"""A high quantile of how far each image's pixels are from zero, for thresholds that follow the image."""

from __future__ import annotations

import math

import torch
from torch import Tensor

FUSED = (torch.float32, torch.bfloat16, torch.float16)
"""What the kernel reads; it looks at float32."""
LARGEST = 16384
"""Pixels of all channels of an image that one program holds in registers."""


def magnitude(x: Tensor, share: float) -> Tensor:
    """The size |x| that `share` of each image's pixels do not exceed, of x [B, ...]: [B] in the dtype of x.

    Between two order statistics it is interpolated linearly, as `torch.quantile` does. On a GPU one kernel
    reads each image once; elsewhere, and of larger images, only what is above a high quantile is sorted.
    """
    flat = x.flatten(1)
    place = share * (flat.shape[1] - 1)
    below = math.floor(place)
    if x.is_cuda and x.dtype in FUSED and flat.shape[1] <= LARGEST:
        from genbench.ops.kernels.quantile import neighbours_of_place

        low, high = neighbours_of_place(flat.contiguous(), below).to(x.dtype)
    else:
        above = flat.abs().topk(flat.shape[1] - below, dim=1).values  # from the largest to the one below
        low = above[:, -1]
        high = above[:, -2] if above.shape[1] > 1 else low
    return torch.lerp(low, high, place - below)
