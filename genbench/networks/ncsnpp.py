"""DDPM++ and NCSN++ (Song et al. 2021, appendix H; the CIFAR-10 network of Karras et al. 2022), by arguments.

A U-Net whose residual blocks do the up- and downsampling themselves (as BigGAN's, Brock et al. 2019), with
R for that resampling, or nothing:

    block(h) = (W R h + conv(dropout(silu(norm(conv(R silu(norm(h))) + e))))) r        W: 1x1, where needed
    e        = V silu(M(embedding(time) + A augment) + label)                          M: two layers
    r        = 1 / sqrt(2) with `skip_rescale`, 1 without

r keeps the variance of a sum of two independent signals, and multiplies after every attention too. Each level
has `blocks` blocks on the way down and `blocks + 1` on the way up; between levels stands one more that
resamples. On the way down each block of a level in `attention` attends, on the way up only the last.

    DDPM++   taps [1, 1], positional embedding
    NCSN++   taps [1, 3, 3, 1], Fourier features of the log noise level, and `progressive_input`: at each
             smaller level the image, filtered and convolved down, is added to the features, and the sum is
             what is convolved down next

Dividing the output by sigma, as NCSN++ does, belongs to the parameterisation and is not done here. Three
differences from both papers' code: layers that end a branch start at zero exactly (at 1e-10 and 1e-5 times a
draw there), attention starts as in genbench/networks/attention.py (EDM: sqrt(.2) times that), and labels join
after the two layers M, as in genbench/networks/unet.py (EDM: before).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genbench.contracts import UserError
from genbench.networks.attention import Attention
from genbench.networks.dropout import dropout_
from genbench.networks.embedding import Fourier, Positional, with_label
from genbench.networks.fir import Down, DownConvolution, Up
from genbench.networks.initialisation import convolution, drawn, drawn_in_parts, zeroed
from genbench.networks.levels import Levels, memory_format
from genbench.networks.normalisation import GroupNorm, group_norm

LEAST_GROUP = 4
"""Channels that a group of the normalisation has at least, as in both papers' code."""


class ResamplingBlock(nn.Module):
    """The block of the formula above, with optional attention.

    forward(x [B, channels, H, W], condition [B, out_channels]) returns [B, out_channels, H', W'] with H, W as
    `resample` changes them (None: not at all); rescale: r.
    """

    def __init__(
        self,
        channels: int,
        out_channels: int,
        resample: nn.Module | None = None,
        *,
        dropout: float,
        groups: int,
        heads: int,
        attend: bool,
        rescale: float,
    ) -> None:
        super().__init__()
        self.dropout = dropout
        self.rescale = rescale
        self.condition_width = out_channels
        self.resample = resample or nn.Identity()
        self.norm_in = _norm(channels, groups)
        self.conv_in = convolution(channels, out_channels)
        self.norm_out = _norm(out_channels, groups)
        self.conv_out = zeroed(convolution(out_channels, out_channels))
        same = channels == out_channels and resample is None
        self.shortcut = nn.Identity() if same else convolution(channels, out_channels, size=1)
        self.attention = Attention(out_channels, heads, _groups(out_channels, groups)) if attend else None

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        hidden = self.conv_in(self.resample(self.norm_in(x)))
        hidden = self.norm_out(hidden.add_(condition[:, :, None, None]))
        hidden = dropout_(hidden, self.dropout, self.training)
        # In place: no layer keeps its output for the way back.
        hidden = self.conv_out(hidden).add_(self.shortcut(self.resample(x))).mul_(self.rescale)
        return hidden if self.attention is None else self.attention(hidden).mul_(self.rescale)


class Descent(nn.Module):
    """The blocks of one size on the way down, then `shrink` and the image's own way down, where there are."""

    def __init__(
        self,
        blocks: Sequence[ResamplingBlock],
        shrink: ResamplingBlock | None,
        image: DownConvolution | None,
        rescale: float,
    ) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.shrink = shrink
        self.image = image
        self.rescale = rescale

    def forward(
        self, hidden: Tensor, image: Tensor, conditions: Iterator[Tensor], skips: list[Tensor]
    ) -> tuple[Tensor, Tensor]:
        """(features, what is left of the image) for the next size; every feature map goes to `skips`."""
        for block in self.blocks:
            hidden = block(hidden, next(conditions))
            skips.append(hidden)
        if self.shrink is not None:
            hidden = self.shrink(hidden, next(conditions))
            if self.image is not None:
                image = hidden = hidden.add_(self.image(image)).mul_(self.rescale)
            skips.append(hidden)
        return hidden, image


class Ascent(nn.Module):
    """The blocks of one size on the way up, then `enlarge` unless it is the full size."""

    def __init__(self, blocks: Sequence[ResamplingBlock], enlarge: ResamplingBlock | None) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.enlarge = enlarge

    def forward(self, hidden: Tensor, conditions: Iterator[Tensor], skips: list[Tensor]) -> Tensor:
        """What goes on up; every block takes the last of `skips`."""
        for block in self.blocks:
            hidden = block(torch.cat((hidden, skips.pop()), dim=1), next(conditions))
        return hidden if self.enlarge is None else self.enlarge(hidden, next(conditions))


class NCSNpp(nn.Module):
    """The network F(x, time, label, augment).

    image_shape: (C, H, W); channels: features at full size, multiplied by `multipliers[i]` at level i, whose
    images are 2^i times smaller; blocks: residual blocks a level (4, and 8 where Song et al. say "deep");
    attention: heights of the feature maps that attend to themselves (the smallest always does, in the
    middle); embedding: of the time, `Positional(channels)` unless given; taps: of the resampling filter;
    progressive_input: whether the image joins at every level; skip_rescale: whether sums are divided by
    sqrt(2); heads, dropout, classes, out_channels, groups: as in `genbench.networks.unet.UNet`, but that a
    group has 4 channels at least; augment_features: length of the vector that says how an image was
    augmented (9 for genbench.generators.augmentation), 0 for none.

    Sizes that do not halve often enough are padded (genbench/networks/levels.py). Raises UserError for an
    attention height that is not the height of a level, and for labels or augment vectors given to a network
    that was built without.
    """

    def __init__(
        self,
        image_shape: Sequence[int],
        channels: int = 128,
        multipliers: Sequence[int] = (1, 2, 2, 2),
        blocks: int = 4,
        attention: Sequence[int] = (16,),
        embedding: Positional | Fourier | None = None,
        taps: Sequence[float] = (1, 1),
        progressive_input: bool = False,
        skip_rescale: bool = True,
        heads: int = 1,
        dropout: float = 0.1,
        classes: int = 0,
        augment_features: int = 0,
        out_channels: int | None = None,
        groups: int = 32,
    ) -> None:
        super().__init__()
        in_channels, height, width = image_shape
        self.image_shape = (in_channels, height, width)
        self.classes = classes
        self.augment_features = augment_features
        self.out_channels = in_channels if out_channels is None else out_channels
        self.levels = Levels(height, width, len(multipliers), attention)
        heights = self.levels.heights
        rescale = 0.5**0.5 if skip_rescale else 1.0

        def block(
            width_in: int, width_out: int, attend: bool = False, resample: nn.Module | None = None
        ) -> ResamplingBlock:
            return ResamplingBlock(
                width_in,
                width_out,
                resample,
                dropout=dropout,
                groups=groups,
                heads=heads,
                attend=attend,
                rescale=rescale,
            )

        features = 4 * channels
        self.embedding = Positional(channels) if embedding is None else embedding
        embedded = self.embedding.features
        self.time = nn.Sequential(
            drawn(nn.Linear(embedded, features)), nn.SiLU(), drawn(nn.Linear(features, features))
        )
        # Without a bias: the vector of an untouched image is zero, and so is what it adds.
        self.augment = drawn(nn.Linear(augment_features, embedded, bias=False)) if augment_features else None
        self.label = nn.Embedding(classes + 1, features) if classes else None  # the last row: no label
        self.stem = convolution(in_channels, channels)

        current, image, skips = channels, in_channels, [channels]
        down: list[Descent] = []
        for level, multiplier in enumerate(multipliers):
            stack = []
            for _ in range(blocks):
                stack.append(block(current, channels * multiplier, heights[level] in attention))
                current = channels * multiplier
                skips.append(current)
            shrink = join = None
            if level < len(multipliers) - 1:
                shrink = block(current, current, resample=Down(taps))
                join = DownConvolution(image, current, taps) if progressive_input else None
                image = current
                skips.append(current)
            down.append(Descent(stack, shrink, join, rescale))
        self.down = nn.ModuleList(down)
        self.middle = nn.ModuleList([block(current, current, attend=True), block(current, current)])
        up: list[Ascent] = []
        for level, multiplier in reversed(list(enumerate(multipliers))):
            stack = []
            for index in range(blocks + 1):
                attend = index == blocks and heights[level] in attention
                stack.append(block(current + skips.pop(), channels * multiplier, attend))
                current = channels * multiplier
            up.append(Ascent(stack, block(current, current, resample=Up(taps)) if level else None))
        self.up = nn.ModuleList(up)
        self.norm = _norm(current, groups)
        self.out = zeroed(convolution(current, self.out_channels))

        # What each block is told is one slice of one matrix product, in the order the blocks are called.
        order = [module for module in self.modules() if isinstance(module, ResamplingBlock)]
        self.condition_widths = [each.condition_width for each in order]
        told = nn.Linear(features, sum(self.condition_widths))
        self.condition = drawn_in_parts(told, self.condition_widths)

    def forward(
        self, x: Tensor, time: Tensor, labels: Tensor | None = None, augment: Tensor | None = None
    ) -> Tensor:
        """The network's output, [B, out_channels, H, W], contiguous, in x's dtype.

        x: [B, C, H, W]; time: [B], what is embedded; labels: int64 [B], -1 for "no label", which is also
        what None means to a network with classes; augment: [B, augment_features], None for untouched images.
        """
        conditions = iter(self._conditions(time, labels, augment).split(self.condition_widths, dim=1))
        image = self.levels.pad(x)
        hidden = self.stem(image).to(memory_format=memory_format(x))
        skips = [hidden]
        for down in self.down:
            hidden, image = down(hidden, image, conditions, skips)
        for block in self.middle:
            hidden = block(hidden, next(conditions))
        for up in self.up:
            hidden = up(hidden, conditions, skips)
        out = self.out(self.norm(hidden))
        return self.levels.crop(out).to(x.dtype).contiguous()

    def _conditions(self, time: Tensor, labels: Tensor | None, augment: Tensor | None) -> Tensor:
        """What all blocks are told, side by side: [B, sum of their widths]."""
        embedded = self.embedding(time)
        if self.augment is not None:
            # Zeros are sent through, too: a parameter that is left out of a step has no gradient to average
            # between ranks.
            shape = (len(embedded), self.augment_features)
            embedded = embedded + self.augment(embedded.new_zeros(shape) if augment is None else augment)
        elif augment is not None:
            raise UserError(
                "augmentation vectors were given to a network without a place for them: set "
                f"network.augment_features={augment.shape[1]}"
            )
        return self.condition(F.silu(with_label(self.time(embedded), self.label, labels)))


def _groups(channels: int, groups: int) -> int:
    return min(groups, max(channels // LEAST_GROUP, 1))


def _norm(channels: int, groups: int) -> GroupNorm:
    return group_norm(channels, _groups(channels, groups), activate=True)
