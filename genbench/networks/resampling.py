"""Upsampling between the levels of a U-Net."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from genbench.networks.initialisation import drawn


class Upsample(nn.Module):
    """Nearest-neighbour upsampling by two, then a 3x3 convolution; [B, C, H, W] to [B, C, 2H, 2W].

    The two are one transposed convolution of stride two, and computed as such: an output pixel sums nine taps
    of the enlarged image, but these see only four different pixels, and the 4x4 kernel below has the taps
    added up beforehand. Less than half the arithmetic, and the enlarged image is never stored. `weight` is
    the 3x3 kernel, [C, C, 3, 3].
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        layer = drawn(nn.Conv2d(channels, channels, 3))
        self.weight, self.bias = layer.weight, layer.bias

    def forward(self, x: Tensor) -> Tensor:
        kernel = self.weight.flip(2, 3).transpose(0, 1)  # a transposed convolution's order of axes and taps
        sums = F.avg_pool2d(kernel, 2, stride=1, padding=1, divisor_override=1)
        return F.conv_transpose2d(x, sums, self.bias, stride=2, padding=1)
