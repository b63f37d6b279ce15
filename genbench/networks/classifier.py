"""A small residual classifier: the network behind genbench's own feature extractors.

    stem        3x3 convolution to widths[0] at the image's resolution
    stage i     3x3 convolution to widths[i], stride strides[i], then blocks[i] residual blocks
    pool        mean over the remaining pixels: the features, float [B, widths[-1]]
    logits      one linear layer, [B, classes]

Every convolution is followed by batch normalisation; a residual block is relu(x + BN conv relu BN conv x)
with its last scale started at zero, so that it starts as the identity (Goyal et al. 2017, section 5.1). The
features are a mean of activations over the whole image, hence smooth in the image: one changed pixel moves
them little.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from torch import Tensor, nn
from torch.nn import functional as F


class ConvNorm(nn.Sequential):
    """3x3 convolution without bias, then batch normalisation."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__(
            nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False), nn.BatchNorm2d(outputs)
        )


class ResidualBlock(nn.Module):
    """relu(x + BN conv relu BN conv x), [B, C, H, W] to the same; the identity on x >= 0 at the start."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = ConvNorm(width, width)
        self.second = ConvNorm(width, width)
        nn.init.zeros_(cast(nn.BatchNorm2d, self.second[1]).weight)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.second(F.relu(self.first(x))))


class ConvClassifier(nn.Module):
    """Images [B, C, H, W] in [-1, 1] to (pool [B, widths[-1]], logits [B, classes]).

    channels: C; classes: number of labels; widths, strides, blocks: one entry a stage, as in the module's
    docstring (the stem counts as part of stage 0). Any H and W not smaller than the product of the strides
    will do.
    """

    def __init__(
        self,
        channels: int,
        classes: int,
        widths: Sequence[int] = (32, 64, 128),
        strides: Sequence[int] = (1, 2, 2),
        blocks: Sequence[int] = (1, 1, 1),
    ) -> None:
        super().__init__()
        if not len(widths) == len(strides) == len(blocks):
            raise ValueError(
                f"widths, strides and blocks must have one entry a stage, found {len(widths)}, "
                f"{len(strides)} and {len(blocks)} entries"
            )
        self.channels, self.classes, self.features = channels, classes, widths[-1]
        layers: list[nn.Module] = []
        inputs = channels
        for width, stride, count in zip(widths, strides, blocks):
            layers += [ConvNorm(inputs, width, stride), nn.ReLU(inplace=True)]
            layers += [ResidualBlock(width) for _ in range(count)]
            inputs = width
        self.body = nn.Sequential(*layers)
        self.head = nn.Linear(inputs, classes)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        pool = self.body(images).mean(dim=(2, 3))
        return pool, self.head(pool)
