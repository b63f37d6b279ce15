"""A high quantile of each image's pixels, for thresholds that follow the image."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def quantile(x: Tensor, share: float) -> Tensor:
    """The value of x [B, ...] below which `share` of each image lies, [B], in the dtype of x.

    Between two order statistics it is interpolated linearly, as `torch.quantile` does. Of a high quantile
    only what is above it is sorted, which is many times less.
    """
    flat = x.flatten(1)
    place = share * (flat.shape[1] - 1)
    below = math.floor(place)
    above = flat.topk(flat.shape[1] - below, dim=1).values  # from the largest down to the one below
    low = above[:, -1]
    high = above[:, -2] if above.shape[1] > 1 else low
    return torch.lerp(low, high, place - below)
