"""Augmentation of the images a shipped extractor is trained on: of position, never of quality.

An extractor that had learnt to overlook noise or blur could not measure them, so images are only moved,
mirrored, turned and partly hidden. Each class maps float [B, C, H, W] in [-1, 1] to the same shape, dtype and
device, every image by a draw of its own from torch's generators, which the trainer seeds before each step.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

BLACK = -1.0


class Shift:
    """Displaces by whole pixels, uniform in [-pixels, pixels] along both axes.

    What enters at the edges is the image reflected, or black where `black` (digits and garments lie on
    black).
    """

    def __init__(self, pixels: int, black: bool = False) -> None:
        self.pixels, self.black = pixels, black

    def __call__(self, images: Tensor) -> Tensor:
        batch, channels, height, width = images.shape
        around = (self.pixels,) * 4
        padded = F.pad(images, around, value=BLACK) if self.black else F.pad(images, around, mode="reflect")
        device = images.device
        down, right = torch.randint(2 * self.pixels + 1, (2, batch, 1), device=device)
        rows = (down + torch.arange(height, device=device))[:, None, :, None]
        columns = (right + torch.arange(width, device=device))[:, None, None, :]
        image = torch.arange(batch, device=device)[:, None, None, None]
        channel = torch.arange(channels, device=device)[None, :, None, None]
        return padded[image, channel, rows, columns]


class Flip:
    """Mirrors half of the images left to right."""

    def __call__(self, images: Tensor) -> Tensor:
        mirrored = torch.rand(len(images), 1, 1, 1, device=images.device) < 0.5
        return torch.where(mirrored, images.flip(-1), images)


class Cutout:
    """Sets a square of `side` pixels, centred anywhere, to 0 (grey): DeVries & Taylor 2017."""

    def __init__(self, side: int) -> None:
        self.side = side

    def __call__(self, images: Tensor) -> Tensor:
        batch, _, height, width = images.shape
        device = images.device
        rows = torch.arange(height, device=device) - torch.randint(height, (batch, 1), device=device)
        columns = torch.arange(width, device=device) - torch.randint(width, (batch, 1), device=device)
        low, high = -(self.side // 2), self.side - self.side // 2
        hole = ((rows >= low) & (rows < high))[:, :, None] & ((columns >= low) & (columns < high))[:, None, :]
        return images.masked_fill(hole[:, None], 0.0)


class Affine:
    """Rotates, scales and shears about the centre and displaces, resampling bilinearly; black enters.

    degrees, scale, shear, shift: half-widths of uniform laws: angle in degrees, log of the magnification,
    shear as a slope, displacement in pixels. Applied to the share `probability` of the images: the others
    stay sharp, since resampling blurs and the extractor must still know a sharp image from a blurred one.
    """

    def __init__(
        self, degrees: float, scale: float, shear: float, shift: float, probability: float = 0.5
    ) -> None:
        self.degrees, self.scale, self.shear, self.shift = degrees, scale, shear, shift
        self.probability = probability

    def __call__(self, images: Tensor) -> Tensor:
        batch, _, height, width = images.shape
        angle, scale, shear, right, down = 2 * torch.rand(5, batch, device=images.device) - 1
        angle, shear = angle * math.radians(self.degrees), shear * self.shear
        scale = (scale * self.scale).exp()
        cosine, sine = angle.cos() * scale, angle.sin() * scale
        # affine_grid's coordinates run from -1 to 1 across the image: a pixel is 2 / width of them.
        across = torch.stack((cosine, shear * cosine - sine, right * self.shift * 2 / width), dim=1)
        along = torch.stack((sine, shear * sine + cosine, down * self.shift * 2 / height), dim=1)
        grid = F.affine_grid(torch.stack((across, along), dim=1), list(images.shape), align_corners=False)
        moved = F.grid_sample(images.float() - BLACK, grid, align_corners=False).add(BLACK).to(images.dtype)
        chosen = torch.rand(batch, 1, 1, 1, device=images.device) < self.probability
        return torch.where(chosen, moved, images)


class Chain:
    """One augmentation after another; none at all leaves the images as they are."""

    def __init__(self, steps: Sequence[Callable[[Tensor], Tensor]] = ()) -> None:
        self.steps = list(steps)

    def __call__(self, images: Tensor) -> Tensor:
        for step in self.steps:
            images = step(images)
        return images
