"""Ways to spoil images by degrees, and the distance of what results."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from genbench.metrics.extractors import Shipped
from genbench.metrics.fid import frechet_distance
from genbench.metrics.moments import Moments
from genbench.ops.quantize import dequantize, quantize

Damage = Callable[[Tensor, Tensor, float], Tensor]
"""(images uint8 [N, C, H, W], labels [N], how much) -> images uint8 [M, C, H, W]."""


def blurred(images: Tensor, labels: Tensor, deviation: float) -> Tensor:
    """Convolved with a Gaussian of `deviation` pixels."""
    if deviation == 0:
        return images
    taps = torch.arange(-6, 7).float()
    kernel = torch.softmax(-(taps**2) / (2 * deviation**2), dim=0)
    channels = images.shape[1]
    rows, columns = kernel.reshape(1, 1, 1, -1), kernel.reshape(1, 1, -1, 1)
    smooth = F.pad(dequantize(images), (6, 6, 6, 6), mode="replicate")
    smooth = F.conv2d(smooth, rows.expand(channels, -1, -1, -1), groups=channels)
    return quantize(F.conv2d(smooth, columns.expand(channels, -1, -1, -1), groups=channels))


def noisy(images: Tensor, labels: Tensor, deviation: float) -> Tensor:
    """With independent normal noise of `deviation` (the range of pixels being 2)."""
    noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(0))
    return quantize(dequantize(images) + deviation * noise)


def without_classes(images: Tensor, labels: Tensor, dropped: float) -> Tensor:
    """Without the first `dropped` classes."""
    return images[labels >= dropped]


def duplicated(images: Tensor, labels: Tensor, share: float) -> Tensor:
    """As many images, drawn again and again from the first 1 - `share` of them."""
    kept = max(int(len(images) * (1 - share)), 1)
    return images[torch.arange(len(images)) % kept]


def distances(
    extractor: Shipped,
    images: Tensor,
    labels: Tensor,
    reference: Moments,
    damage: Damage,
    degrees: Sequence[float],
) -> list[float]:
    """The Fréchet distance to `reference` at each degree of damage."""
    found = []
    for degree in degrees:
        moments = Moments()
        for part in damage(images, labels, degree).split(500):
            moments.update(extractor(part)["pool"])
        found.append(frechet_distance(moments, reference))
    return found
