"""The sizes a U-Net works at, and how an image that does not halve so often is made to.

Level i of L has feature maps 2^i times smaller than the image, so both sides must be multiples of 2^(L - 1).
Images of other sizes are padded with zeros and the output is cropped (28 becomes 32 with four levels, and
stays 28 with three). Zero and not the background's -1: at t = 1 the input is noise around zero whatever the
image was, and zeros are what every convolution pads with anyway, so the border means the same to all
corruptions and times.
"""

from __future__ import annotations

from collections.abc import Collection

import torch
import torch.nn.functional as F
from torch import Tensor

from genbench.contracts import UserError


class Levels:
    """Padding and feature map heights for images of height x width in a network of `count` levels.

    attention: the heights of the feature maps that attend to themselves. Raises UserError where one of them
    is not the height of a level.
    """

    def __init__(self, height: int, width: int, count: int, attention: Collection[int]) -> None:
        multiple = 2 ** (count - 1)
        top_bottom = _padding(height, multiple)
        self.padding = _padding(width, multiple) + top_bottom
        """Pixels left, right, above and below."""
        tallest = height + sum(top_bottom)
        self.heights = [tallest // 2**level for level in range(count)]
        if unknown := set(attention) - set(self.heights):
            raise UserError(
                f"network.attention names feature maps of height {sorted(unknown)}, but {height}x{width} "
                f"images and {count} levels have heights {self.heights}: choose among these, or []"
            )

    def pad(self, x: Tensor) -> Tensor:
        """Images [B, C, H, W] with zeros around them; `x` itself where none are needed."""
        return F.pad(x, self.padding) if any(self.padding) else x

    def crop(self, x: Tensor) -> Tensor:
        """The part of [B, C, H', W'] that lies where the image was."""
        left, right, top, bottom = self.padding
        return x[:, :, top : x.shape[2] - bottom, left : x.shape[3] - right]


def _padding(length: int, multiple: int) -> tuple[int, int]:
    """Pixels before and after that make `length` a multiple of `multiple`."""
    missing = -length % multiple
    return missing // 2, missing - missing // 2


def memory_format(x: Tensor) -> torch.memory_format:
    """The order of axes in memory the feature maps get; convolutions keep that of their input.

    On a CPU (torch 2.15, AVX512), channels_last makes float32 convolutions of 64 channels and more a quarter
    faster; in bfloat16 it gains little and makes group normalisation ten times slower, unless the network is
    compiled: then a forward pass takes 0.84 times as long in it (64 channels, 8 images of 32x32). On a GPU
    tensor cores, which bfloat16 is for, take the channels of a pixel side by side, and cuDNN would transpose
    before and after each convolution; in float32 it is left as it comes.
    """
    device = x.device.type
    if device not in ("cpu", "cuda"):
        return torch.preserve_format
    computes_in_float32 = x.dtype == torch.float32 and not torch.is_autocast_enabled(device)
    if device == "cuda":
        return torch.preserve_format if computes_in_float32 else torch.channels_last
    eager = not torch.compiler.is_compiling()
    return torch.contiguous_format if eager and not computes_in_float32 else torch.channels_last
