"""Halving and doubling images with a smoothing filter, as StyleGAN2 and NCSN++ do.

With symmetric taps f of even length n, K = f f^T / (sum f)^2 and zeros around the image,

    down(x) = every second row and column of K * x,        up(y) = 4 down^T(y)

so that both keep the mean: K sums to one, and each pixel that `up` writes is reached by every second row and
column of 4 K, which sum to one as well. Taps [1, 1] are the mean of 2x2 pixels and nearest-neighbour
enlargement. [1, 3, 3, 1], the binomial filter (Zhang 2019), is what keeps a strided convolution from
aliasing, and its `up` is linear interpolation. As in the reference code the zeros also enter the filter, so
within n/2 - 1 pixels of the border a constant image loses some of its brightness; in the interior, and with
[1, 1] everywhere, it is kept.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genbench.contracts import UserError
from genbench.networks.initialisation import drawn


class _Filter(nn.Module, ABC):
    """A filter with the kernel K, [1, 1, n, n], for every channel.

    Raises UserError for taps that are not even in number and symmetric.
    """

    kernel: Tensor

    def __init__(self, taps: Sequence[float]) -> None:
        super().__init__()
        if len(taps) == 0 or len(taps) % 2 or list(taps) != list(taps)[::-1] or sum(taps) == 0:
            raise UserError(
                f"network.taps={list(taps)}: a filter for halving and doubling has an even number of taps, "
                "the same forwards and backwards, whose sum is not zero: set it to [1, 1] or [1, 3, 3, 1]"
            )
        weights = torch.tensor(taps, dtype=torch.float64) / sum(taps)
        self.reach = len(taps) // 2
        self.register_buffer("kernel", torch.outer(weights, weights).float()[None, None], persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        # A bfloat16 depthwise convolution on a CPU takes three to ten times as long as a float32 one (torch
        # 2.15, AVX512 with bf16), longer than the 3x3 convolution beside it.
        rounding = x.dtype == torch.bfloat16 or torch.is_autocast_enabled("cpu")
        if x.device.type == "cpu" and rounding:
            with torch.autocast("cpu", enabled=False):
                return self.filter(x.float(), self._kernels(x.float())).to(x.dtype)
        return self.filter(x, self._kernels(x))

    def _kernels(self, x: Tensor) -> Tensor:
        return self.kernel.to(x.dtype).expand(x.shape[1], -1, -1, -1)

    @abstractmethod
    def filter(self, x: Tensor, kernels: Tensor) -> Tensor:
        """`x` [B, C, H, W] convolved channel by channel with `kernels` [C, 1, n, n]."""


class Down(_Filter):
    """[B, C, H, W] with even H and W to [B, C, H/2, W/2]."""

    def filter(self, x: Tensor, kernels: Tensor) -> Tensor:
        return F.conv2d(x, kernels, stride=2, padding=self.reach - 1, groups=x.shape[1])


class Up(_Filter):
    """[B, C, H, W] to [B, C, 2H, 2W]; four times the transpose of `Down`."""

    def filter(self, x: Tensor, kernels: Tensor) -> Tensor:
        return F.conv_transpose2d(x, 4 * kernels, stride=2, padding=self.reach - 1, groups=x.shape[1])


class _Smooth(_Filter):
    """[B, C, H, W] to [B, C, H + 1, W + 1], at every place where a 3x3 convolution of stride two looks."""

    def filter(self, x: Tensor, kernels: Tensor) -> Tensor:
        return F.conv2d(x, kernels, padding=self.reach, groups=x.shape[1])


class DownConvolution(nn.Module):
    """The filter, then a 3x3 convolution of stride two; [B, C, H, W] to [B, out_channels, H/2, W/2].

    All zeros enter before the filter: padding between the two would not be smoothed.
    """

    def __init__(self, channels: int, out_channels: int, taps: Sequence[float]) -> None:
        super().__init__()
        self.smooth = _Smooth(taps)
        self.conv = drawn(nn.Conv2d(channels, out_channels, 3, stride=2))

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(self.smooth(x))
