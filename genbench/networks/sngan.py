"""The residual pair for 32x32 images of SNGAN (Miyato et al. 2018, appendix B.4), sized by its arguments.

    generator   z -> Linear -> [width, base, base] -> residual blocks, some doubling -> BN, ReLU, conv, tanh
    critic      x -> residual blocks, some halving -> ReLU -> sum over pixels -> one number

A generator's block is x' + conv(relu(BN(conv(up(relu(BN(x)))))) with the nearest-neighbour upsampling also on
the shortcut x'; a critic's block is the same without normalisation and with average pooling at its end. With
three doublings and 256 channels the generator has 4,276,739 parameters at 3x32x32.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genbench.networks.conditional import conditional_batch_norm
from genbench.networks.critic import Critic, Projection
from genbench.networks.dcgan import EMBEDDING, base_size, class_embedding
from genbench.networks.initialisation import drawn, without_bias


def _convolution(inputs: int, outputs: int, size: int = 3, gain: float = 2**0.5) -> nn.Conv2d:
    """A convolution started as the reference's: uniform with `gain`, sqrt(2) inside blocks, 1 elsewhere."""
    layer = nn.Conv2d(inputs, outputs, size, padding=size // 2)
    nn.init.xavier_uniform_(layer.weight, gain=gain)
    return without_bias(layer)


class GeneratorBlock(nn.Module):
    """One residual block on the way up, [B, inputs, H, W] to [B, outputs, H, W] or twice that size."""

    def __init__(self, inputs: int, outputs: int, doubles: bool, condition: int) -> None:
        super().__init__()
        self.doubles = doubles
        self.norm_in = conditional_batch_norm(inputs, condition)
        self.conv_in = _convolution(inputs, outputs)
        self.norm_out = conditional_batch_norm(outputs, condition)
        self.conv_out = _convolution(outputs, outputs)
        plain = inputs == outputs and not doubles
        self.shortcut = nn.Identity() if plain else _convolution(inputs, outputs, size=1, gain=1.0)

    def forward(self, x: Tensor, condition: Tensor | None) -> Tensor:
        hidden = self.conv_in(self._up(F.relu(self.norm_in(x, condition))))
        hidden = self.conv_out(F.relu(self.norm_out(hidden, condition)))
        # A 1x1 convolution commutes with repeating pixels and is four times cheaper before it.
        return hidden + self._up(self.shortcut(x))

    def _up(self, x: Tensor) -> Tensor:
        return F.interpolate(x, scale_factor=2, mode="nearest") if self.doubles else x


class CriticBlock(nn.Module):
    """One residual block on the way down, halving the size where `halve`.

    first: the block next to the image, whose input is not rectified.
    """

    def __init__(self, inputs: int, outputs: int, halve: bool, first: bool) -> None:
        super().__init__()
        self.halve, self.first = halve, first
        self.conv_in = _convolution(inputs, outputs)
        self.conv_out = _convolution(outputs, outputs)
        plain = inputs == outputs and not halve
        self.shortcut = nn.Identity() if plain else _convolution(inputs, outputs, size=1, gain=1.0)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.conv_in(x if self.first else F.relu(x))
        hidden = self._down(self.conv_out(F.relu(hidden)))
        # A 1x1 convolution commutes with averaging pixels and is four times cheaper after it.
        return hidden + self.shortcut(self._down(x))

    def _down(self, x: Tensor) -> Tensor:
        return F.avg_pool2d(x, 2) if self.halve else x


class ResidualGenerator(nn.Module):
    """Latents [B, latent] and labels to images [B, C, H, W] in [-1, 1].

    widths: channels of each block; double: whether each doubles the size.
    """

    def __init__(
        self,
        image_shape: Sequence[int],
        latent: int,
        widths: Sequence[int] = (256, 256, 256),
        double: Sequence[bool] = (True, True, True),
        classes: int = 0,
    ) -> None:
        super().__init__()
        channels, height, width = image_shape
        self.base = base_size(height, width, sum(double))
        self.classes = class_embedding(classes)
        told = EMBEDDING if classes else 0
        self.stem = drawn(nn.Linear(latent, widths[0] * self.base**2))
        inputs = [widths[0], *widths[:-1]]
        self.blocks = nn.ModuleList(
            GeneratorBlock(inside, outside, up, told)
            for inside, outside, up in zip(inputs, widths, double, strict=True)
        )
        self.norm = conditional_batch_norm(widths[-1], told)
        self.out = _convolution(widths[-1], channels, gain=1.0)

    def forward(self, latents: Tensor, labels: Tensor | None = None) -> Tensor:
        condition = None if self.classes is None or labels is None else self.classes(labels)
        hidden = self.stem(latents).unflatten(1, (-1, self.base, self.base))
        hidden = hidden.contiguous(memory_format=torch.channels_last)
        for block in self.blocks:
            hidden = block(hidden, condition)
        return torch.tanh(self.out(F.relu(self.norm(hidden, condition)))).contiguous()


class ResidualCritic(Critic):
    """The critic above.

    widths: channels of each block; halve: whether each halves the size.
    """

    def __init__(
        self,
        image_shape: Sequence[int],
        widths: Sequence[int] = (128, 128, 128, 128),
        halve: Sequence[bool] = (True, True, False, False),
        classes: int = 0,
    ) -> None:
        super().__init__()
        channels, height, width = image_shape
        base_size(height, width, sum(halve))
        inputs = [channels, *widths[:-1]]
        self.blocks = nn.ModuleList(
            CriticBlock(inside, outside, down, first=index == 0)
            for index, (inside, outside, down) in enumerate(zip(inputs, widths, halve, strict=True))
        )
        self.head = Projection(widths[-1], classes)

    def features(self, images: Tensor) -> Tensor:
        """What the last layer sees, [B, widths[-1]]: the sum over pixels, not the mean, as published."""
        hidden = images.contiguous(memory_format=torch.channels_last)
        for block in self.blocks:
            hidden = block(hidden)
        return F.relu(hidden).sum(dim=(2, 3))
