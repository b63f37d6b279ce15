"""EDM's augmentation of small data sets: images are moved, and the network is told how.

Because the network sees the label a of what was done, it learns the moved images without generating them:
sampling asks for a = 0 (Karras et al. 2022, appendix F.2). With probability p each, independently, and in
this order,

    mirror left-right   (always tossed)   1 or 0                            a_0 = 1 where mirrored
    mirror top-bottom                     1 or 0                            a_1 = 1 where mirrored
    enlarge by 2^(0.2 w)                  w ~ N(0, 1)                       a_2 = w
    turn by u                             u ~ U(-pi, pi)                    a_3, a_4 = cos u - 1, sin u
    stretch by 2^(0.2 w) along r          w ~ N(0, 1), r = 0 or U(-pi, pi)  a_5, a_6 = w cos r, w sin r
    shift by an eighth of the size times  (v, h) ~ N(0, I)                  a_7, a_8 = h to the right, v down

where stretching shrinks as much across r as it enlarges along it. "1 or 0" is a coin: with probability p, the
left-right one always, it is tossed at all. All but the mirrors are one affine map of the centred pixels, read
off in one resampling; what enters is the image reflected about its outermost pixels.

a_5 and a_6 are those of the reference, and do not tell w along r from -w along r + pi, which is the opposite.
The reference resamples between two wavelet filters at twice the size; here it is bicubic, which needs no
intermediate image. Neither clips, so values may leave [-1, 1] slightly beside edges.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from genbench.contracts import UserError

FEATURES = 9
"""Length of the label, which is a network's `augment_features`."""


@dataclass(frozen=True)
class Movement:
    """What is done to B images; each field is [B], and all zeros leave an image as it is.

    mirrored, upended: bool; enlarged, stretched: in standard deviations of the logarithm; angle, direction:
    in radians, counter-clockwise as seen; right, down: in standard deviations of the displacement.
    """

    mirrored: Tensor
    upended: Tensor
    enlarged: Tensor
    angle: Tensor
    stretched: Tensor
    direction: Tensor
    right: Tensor
    down: Tensor

    def label(self) -> Tensor:
        """The label a of the table above, float32 [B, 9]; zeros for an image left as it is."""
        along, across = self.stretched * self.direction.cos(), self.stretched * self.direction.sin()
        columns = (
            self.mirrored.float(),
            self.upended.float(),
            self.enlarged,
            self.angle.cos() - 1,
            self.angle.sin(),
            along,
            across,
            self.right,
            self.down,
        )
        return torch.stack(columns, dim=1)

    @property
    def resampled(self) -> Tensor:
        """bool [B]: whether more than mirroring is done."""
        parts = torch.stack((self.enlarged, self.angle, self.stretched, self.right, self.down))
        return (parts != 0).any(dim=0)


class AugmentationPipe:
    """images [B, C, H, W] in [-1, 1] to (images of the same shape and dtype, labels float32 [B, 9]).

    p: probability of every part but the left-right mirror; scale: deviation of log2 of enlargement and of
    stretching; turned: the share of stretched images whose direction is any and not the horizontal; shift:
    deviation of the displacement as a share of the image's size. Draws from torch's generators, which the
    trainer seeds before each phase. Raises UserError where p is no probability.

    An image whose label is zero is the one that was given, bit for bit.
    """

    def __init__(
        self, p: float = 0.12, scale: float = 0.2, turned: float = 0.5, shift: float = 0.125
    ) -> None:
        if not 0 <= p <= 1:
            raise UserError(f"the augmentation's p={p} is no probability: set it between 0 and 1 (EDM: 0.12)")
        self.p, self.scale, self.turned, self.shift = p, scale, turned, shift

    def __call__(self, images: Tensor) -> tuple[Tensor, Tensor]:
        movement = self.draw(len(images), images.device)
        return self.move(images, movement), movement.label()

    def draw(self, batch: int, device: torch.device) -> Movement:
        """A movement for each of `batch` images."""

        def chance(probability: float) -> Tensor:
            return torch.rand(batch, device=device) < probability

        def angle() -> Tensor:
            return math.pi * (2 * torch.rand(batch, device=device) - 1)

        def sometimes(value: Tensor, probability: float = self.p) -> Tensor:
            return value * chance(probability)

        shifted = chance(self.p)
        return Movement(
            mirrored=chance(0.5),
            upended=chance(0.5) & chance(self.p),
            enlarged=sometimes(torch.randn(batch, device=device)),
            angle=sometimes(angle()),
            stretched=sometimes(torch.randn(batch, device=device)),
            direction=sometimes(angle(), self.turned),
            right=torch.randn(batch, device=device) * shifted,
            down=torch.randn(batch, device=device) * shifted,
        )

    def move(self, images: Tensor, movement: Movement) -> Tensor:
        """`images` [B, C, H, W] after `movement`."""
        images = torch.where(_each(movement.mirrored), images.flip(3), images)
        images = torch.where(_each(movement.upended), images.flip(2), images)
        grid = self._sources(movement, images.shape[2], images.shape[3])
        moved = F.grid_sample(
            images.float(), grid, mode="bicubic", padding_mode="reflection", align_corners=True
        )
        return torch.where(_each(movement.resampled), moved.to(images.dtype), images)

    def _sources(self, movement: Movement, height: int, width: int) -> Tensor:
        """Where each pixel of the moved images comes from, [B, H, W, 2], in grid_sample's coordinates.

        A pixel at q comes from A^-1 (q - b), centred, the y axis pointing down: A is stretching after turning
        after enlarging, b the displacement. With corners aligned, -1 and 1 are the outermost pixels' centres.
        """
        batch, device = len(movement.angle), movement.angle.device
        columns = torch.arange(width, device=device) - (width - 1) / 2 - self._pixels(movement.right, width)
        rows = torch.arange(height, device=device) - (height - 1) / 2 - self._pixels(movement.down, height)
        x = columns[:, None, :].expand(batch, height, width)
        y = rows[:, :, None].expand(batch, height, width)

        stretch = (self.scale * movement.stretched).exp2()[:, None, None]
        x, y = _turned(x, y, -movement.direction)
        x, y = _turned(x / stretch, y * stretch, movement.direction)
        x, y = _turned(x, y, -movement.angle)
        enlarged = (self.scale * movement.enlarged).exp2()[:, None, None]
        # An image one pixel wide has its only pixel at 0, whatever it is divided by.
        halves = torch.tensor([max(width - 1, 1), max(height - 1, 1)], device=device) / 2
        return torch.stack((x / enlarged, y / enlarged), dim=3) / halves

    def _pixels(self, deviations: Tensor, size: int) -> Tensor:
        return (self.shift * size * deviations)[:, None]


def _turned(x: Tensor, y: Tensor, angle: Tensor) -> tuple[Tensor, Tensor]:
    """Points [B, H, W] turned by `angle` [B], counter-clockwise as seen with the y axis pointing down."""
    cosine, sine = angle.cos()[:, None, None], angle.sin()[:, None, None]
    return cosine * x + sine * y, cosine * y - sine * x


def _each(flag: Tensor) -> Tensor:
    return flag[:, None, None, None]
