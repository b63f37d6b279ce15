"""The U-Net of denoising diffusion models (Ho, Jain & Abbeel 2020, appendix B), sized by its arguments.

    h_0      = conv(x)                                          then, level by level, down and up again,
    block(h) = attend(shortcut(h) + conv(dropout(silu(norm(conv(silu(norm(h))) + e)))))
    e        = W silu(embedding(time) + embedding(label))

Each level has `blocks` residual blocks on the way down and `blocks + 1` on the way up, whose input is
concatenated with what the way down left at that size. Between levels stand a convolution of stride two and,
on the way up, nearest-neighbour upsampling before a convolution. With its defaults and 3x32x32 images this
is the published CIFAR-10 network of 35,746,307 parameters. `scale_shift` replaces "+ e" by an adaptive group
normalisation, and `heads` divides the attention (both Nichol & Dhariwal 2021).

Two differences from the reference code, neither of which changes a parameter: strided convolutions pad one
pixel on every side (TensorFlow's "SAME" pads right and below only), and last convolutions start at zero
exactly (the reference draws them with variance 1e-10).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genbench.networks.attention import Attention
from genbench.networks.dropout import dropout_
from genbench.networks.embedding import Positional, with_label
from genbench.networks.initialisation import convolution, drawn, drawn_in_parts, zeroed
from genbench.networks.levels import Levels, memory_format
from genbench.networks.normalisation import group_norm
from genbench.networks.resampling import Upsample


class ResidualBlock(nn.Module):
    """Two normalised convolutions beside a shortcut, told time and class in between, with optional attention.

    forward(x [B, channels, H, W], condition [B, self.condition_width]) returns [B, out_channels, H, W].
    """

    def __init__(
        self,
        channels: int,
        out_channels: int,
        *,
        dropout: float,
        groups: int,
        heads: int,
        attend: bool,
        scale_shift: bool,
    ) -> None:
        super().__init__()
        self.scale_shift = scale_shift
        self.condition_width = out_channels * (2 if scale_shift else 1)
        self.dropout = dropout
        self.norm_in = group_norm(channels, groups, activate=True)
        self.conv_in = convolution(channels, out_channels)
        self.norm_out = group_norm(out_channels, groups, activate=True)
        self.conv_out = zeroed(convolution(out_channels, out_channels))
        same = channels == out_channels
        self.shortcut = nn.Identity() if same else convolution(channels, out_channels, size=1)
        self.attention = Attention(out_channels, heads, groups) if attend else nn.Identity()

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        hidden = self.conv_in(self.norm_in(x))
        if self.scale_shift:
            hidden = self.norm_out(hidden, *condition.chunk(2, dim=1))
        else:
            # In place: no layer keeps its output for the way back.
            hidden = self.norm_out(hidden.add_(condition[:, :, None, None]))
        hidden = dropout_(hidden, self.dropout, self.training)
        return self.attention(self.conv_out(hidden).add_(self.shortcut(x)))


class Down(nn.Module):
    """The residual blocks of one size on the way down, then a strided convolution unless it is the last."""

    def __init__(self, blocks: Sequence[ResidualBlock], downsample: nn.Module | None) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.downsample = downsample

    def forward(self, hidden: Tensor, conditions: Iterator[Tensor], skips: list[Tensor]) -> Tensor:
        """What goes on down; every feature map made is appended to `skips`."""
        for block in self.blocks:
            hidden = block(hidden, next(conditions))
            skips.append(hidden)
        if self.downsample is not None:
            hidden = self.downsample(hidden)
            skips.append(hidden)
        return hidden


class Up(nn.Module):
    """The residual blocks of one size on the way up, then upsampling unless it is the full size."""

    def __init__(self, blocks: Sequence[ResidualBlock], upsample: nn.Module | None) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.upsample = upsample

    def forward(self, hidden: Tensor, conditions: Iterator[Tensor], skips: list[Tensor]) -> Tensor:
        """What goes on up; every block takes the last of `skips`."""
        for block in self.blocks:
            hidden = block(torch.cat((hidden, skips.pop()), dim=1), next(conditions))
        return hidden if self.upsample is None else self.upsample(hidden)


class UNet(nn.Module):
    """The network eps(x, time, label), and whatever else has an image in and an image out.

    image_shape: (C, H, W) of the images; channels: features at full size, multiplied by `multipliers[i]` at
    level i, whose images are 2^i times smaller; blocks: residual blocks a level; attention: the heights of
    the feature maps that attend to themselves (the smallest always does, in the middle); heads: attention
    heads; dropout: probability; classes: number of classes, 0 for none; out_channels: C unless given
    (Improved DDPM's learned variance needs 2C); groups: of the group normalisation, or the next smaller
    divisor of the channels; scale_shift: adaptive group normalisation instead of addition; time_scale: what
    the time is multiplied by before it is embedded.

    Images whose sides are not multiples of 2^(levels - 1) are padded with zeros and the output is cropped
    (genbench/networks/levels.py).

    A UserError says so where an attention height is not the height of a level, and where labels are given to
    a network without classes.
    """

    def __init__(
        self,
        image_shape: Sequence[int],
        channels: int = 128,
        multipliers: Sequence[int] = (1, 2, 2, 2),
        blocks: int = 2,
        attention: Sequence[int] = (16,),
        heads: int = 1,
        dropout: float = 0.1,
        classes: int = 0,
        out_channels: int | None = None,
        groups: int = 32,
        scale_shift: bool = False,
        time_scale: float = 1.0,
    ) -> None:
        super().__init__()
        in_channels, height, width = image_shape
        self.image_shape = (in_channels, height, width)
        self.channels = channels
        self.classes = classes
        self.out_channels = in_channels if out_channels is None else out_channels
        self.levels = Levels(height, width, len(multipliers), attention)
        self.padding, heights = self.levels.padding, self.levels.heights
        self.embedding = Positional(channels, time_scale)

        def block(width_in: int, width_out: int, attend: bool) -> ResidualBlock:
            return ResidualBlock(
                width_in,
                width_out,
                dropout=dropout,
                groups=groups,
                heads=heads,
                attend=attend,
                scale_shift=scale_shift,
            )

        features = 4 * channels
        self.time = nn.Sequential(
            drawn(nn.Linear(channels, features)), nn.SiLU(), drawn(nn.Linear(features, features))
        )
        self.label = nn.Embedding(classes + 1, features) if classes else None  # the last row: no label
        self.stem = convolution(in_channels, channels)

        current, skips = channels, [channels]
        down: list[Down] = []
        for level, multiplier in enumerate(multipliers):
            stack = []
            for _ in range(blocks):
                stack.append(block(current, channels * multiplier, heights[level] in attention))
                current = channels * multiplier
                skips.append(current)
            last = level == len(multipliers) - 1
            down.append(Down(stack, None if last else convolution(current, current, stride=2)))
            skips += [] if last else [current]
        self.down = nn.ModuleList(down)
        self.middle = nn.ModuleList([block(current, current, True), block(current, current, False)])
        up: list[Up] = []
        for level, multiplier in reversed(list(enumerate(multipliers))):
            stack = []
            for _ in range(blocks + 1):
                stack.append(block(current + skips.pop(), channels * multiplier, heights[level] in attention))
                current = channels * multiplier
            up.append(Up(stack, Upsample(current) if level else None))
        self.up = nn.ModuleList(up)
        self.norm = group_norm(current, groups, activate=True)
        self.out = zeroed(convolution(current, self.out_channels))

        # What each block is told is one slice of one matrix product, in the order the blocks are called.
        order = [module for module in self.modules() if isinstance(module, ResidualBlock)]
        self.condition_widths = [each.condition_width for each in order]
        told = nn.Linear(features, sum(self.condition_widths))
        # A scale and shift starts as none: conditional normalisation equals the plain one at first.
        self.condition = zeroed(told) if scale_shift else drawn_in_parts(told, self.condition_widths)

    def forward(self, x: Tensor, time: Tensor, labels: Tensor | None = None) -> Tensor:
        """The network's output, [B, out_channels, H, W], contiguous, in x's dtype.

        x: [B, C, H, W]; time: [B], what is embedded, times `time_scale` (0 ... 999 for DDPM; give other times
        such a range);
        labels: int64 [B], -1 for "no label", which is also what None means to a network with classes.
        """
        conditions = iter(self._conditions(time, labels).split(self.condition_widths, dim=1))
        hidden = self.stem(self.levels.pad(x)).to(memory_format=memory_format(x))
        skips = [hidden]
        for down in self.down:
            hidden = down(hidden, conditions, skips)
        for block in self.middle:
            hidden = block(hidden, next(conditions))
        for up in self.up:
            hidden = up(hidden, conditions, skips)
        out = self.out(self.norm(hidden))
        return self.levels.crop(out).to(x.dtype).contiguous()

    def _conditions(self, time: Tensor, labels: Tensor | None) -> Tensor:
        """What all blocks are told, side by side: [B, sum of their widths]."""
        embedded = with_label(self.time(self.embedding(time)), self.label, labels)
        return self.condition(F.silu(embedded))
