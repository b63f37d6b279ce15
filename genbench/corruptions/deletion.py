"""Deletion: rows, columns or blocks are taken out of an image and the rest moves together (kexue.fm 9271).

An image is a sequence of L units. At t, floor(t L) of them are gone; those left stand first, in their order,
and what follows is `HIDDEN`. Where a unit stood is not said: a model has to find out.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from genbench.contracts import Fitted, Noise, Posterior, UserError
from genbench.corruptions.clock import Timed
from genbench.corruptions.masking import HIDDEN, Counted, reached
from genbench.ops.categorical import categorical_of_logits
from genbench.ops.random import Randomness, Stream


class Units(ABC):
    """A way to read an image as a sequence."""

    @abstractmethod
    def split(self, images: Tensor) -> Tensor:
        """[B, L, D] of images [B, C, H, W]."""

    @abstractmethod
    def join(self, units: Tensor, shape: Sequence[int]) -> Tensor:
        """The inverse: images of `shape` [B, C, H, W]."""


class Rows(Units):
    """From the top."""

    def split(self, images: Tensor) -> Tensor:
        return images.transpose(1, 2).flatten(2)

    def join(self, units: Tensor, shape: Sequence[int]) -> Tensor:
        _, channels, _, width = shape
        return units.unflatten(2, (channels, width)).transpose(1, 2)


class Columns(Units):
    """From the left."""

    def split(self, images: Tensor) -> Tensor:
        return Rows().split(images.transpose(2, 3))

    def join(self, units: Tensor, shape: Sequence[int]) -> Tensor:
        batch, channels, height, width = shape
        return Rows().join(units, (batch, channels, width, height)).transpose(2, 3)


class Blocks(Units):
    """Squares of `side` pixels, in reading order."""

    def __init__(self, side: int = 2) -> None:
        self.side = side

    def split(self, images: Tensor) -> Tensor:
        height, width = images.shape[-2:]
        if height % self.side or width % self.side:
            raise UserError(
                f"corruption.units.side={self.side}: blocks of that side do not fill images of {height} x "
                f"{width} pixels. Type corruption.units.side={math.gcd(height, width, 4)}."
            )
        patches = images.unflatten(3, (-1, self.side)).unflatten(2, (-1, self.side))  # B C h p w p
        return patches.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)

    def join(self, units: Tensor, shape: Sequence[int]) -> Tensor:
        _, channels, height, width = shape
        side = self.side
        patches = units.unflatten(2, (channels, side, side)).unflatten(1, (height // side, width // side))
        return patches.permute(0, 3, 1, 4, 2, 5).flatten(4).flatten(2, 3)


@dataclass(frozen=True)
class Regrown:
    """The law of x_s between what is left in x_t and an estimate of x0: the left stay, others of x0 return.

    Where each unit of x_t stands in x0 is drawn from all ways to place them in order, by how well they match:
    in proportion to exp(-|difference|^2 / (2 tolerance^2)) for the mean difference of a unit's pixels.
    """

    corruption: Deletion
    x_t: Tensor
    x0: Tensor
    s: Tensor
    t: Tensor

    @property
    def mean(self) -> Tensor:
        """x0 itself."""
        return self.x0

    def sample(self, randomness: Randomness, step: int) -> Tensor:
        units, shape = self.corruption.units, self.x0.shape
        x0, left = units.split(self.x0), units.split(self.x_t)
        length = x0.shape[1]
        kept = length - _count(self.t, length)
        uniform, keys = randomness.uniform((2, length), step, Stream.STEP).unbind(dim=1)
        x0, placed = self._placed(x0, left[:, :kept], uniform)
        thresholds = Counted().thresholds(keys.masked_fill(placed, 2.0))  # what x_t shows goes last
        return units.join(_packed(x0, reached(thresholds, self.s)), shape)

    def _placed(self, x0: Tensor, left: Tensor, uniform: Tensor) -> tuple[Tensor, Tensor]:
        """x0 with the units that are left at their places, and which places those are, bool [B, L]."""
        batch, length, _ = x0.shape
        placed = torch.zeros(batch, length, dtype=torch.bool, device=x0.device)
        count = left.shape[1]
        if count == 0:
            return x0, placed
        apart = (left[:, :, None] - x0[:, None]).double().square().mean(dim=-1)  # [B, count, L]
        match = -apart / (2 * self.corruption.tolerance**2)
        # forward[i, j]: log of the sum over placements of the first i + 1 units, the last at j.
        forward = [match[:, 0]]
        for unit in range(1, count):
            before = forward[-1].logcumsumexp(dim=1)
            before = torch.cat((torch.full_like(before[:, :1], -torch.inf), before[:, :-1]), dim=1)
            forward.append(match[:, unit] + before)
        x0 = x0.clone()
        rows = torch.arange(batch, device=x0.device)
        limit = torch.full((batch,), length, device=x0.device)
        places = torch.arange(length, device=x0.device)
        for unit in reversed(range(count)):
            scores = forward[unit].masked_fill(places >= limit[:, None], -torch.inf)
            place = categorical_of_logits(scores, uniform[:, unit])
            x0[rows, place] = left[:, unit].to(x0.dtype)
            placed[rows, place] = True
            limit = place
        return x0, placed


class Deletion(Timed):
    """units: what is deleted at once; tolerance: of `Regrown`, in units of images in [-1, 1]."""

    bridges = True

    def __init__(self, units: Units, steps: int | None = None, tolerance: float = 0.1) -> None:
        super().__init__(steps)
        if not isinstance(units, Units):
            raise UserError(
                f"corruption.units={units}: expected an object, such as "
                "corruption.units._target_=genbench.corruptions.deletion.Columns (Rows, Blocks)."
            )
        self.units, self.tolerance = units, tolerance

    def check_shape(self, shape: Sequence[int]) -> None:
        self.units.split(torch.empty(1, *shape, device="meta"))

    def draw(self, shape: Sequence[int], randomness: Randomness) -> Tensor:
        length = self.units.split(torch.empty(1, *shape[1:], device="meta")).shape[1]
        return Counted().thresholds(randomness.uniform((length,), stream=Stream.NOISE))

    def apply(self, x0: Tensor, noise: Noise, t: Tensor) -> Tensor:
        return self.units.join(_packed(self.units.split(x0), reached(noise, t)), x0.shape)

    def bridge(self, x_t: Tensor, x0: Posterior, s: Tensor, t: Tensor) -> Regrown:
        return Regrown(self, x_t, x0.mean, s, t)

    def terminal(self, shape: Sequence[int], randomness: Randomness, fitted: Fitted) -> Tensor:
        return torch.full(tuple(shape), HIDDEN, device=randomness.device)


def _count(t: Tensor, length: int) -> int:
    """How many of the units are gone at t []; ValueError for times that differ between images."""
    if t.ndim:
        raise ValueError(f"a step of deletion takes one time for all images, found times {tuple(t.shape)}")
    ranks = (torch.arange(length) + 1) / length
    return int(reached(ranks[None], t.cpu()).sum())


def _packed(units: Tensor, gone: Tensor) -> Tensor:
    """The units that are not gone, in order, and then `HIDDEN`."""
    length = units.shape[1]
    order = (torch.arange(length, device=units.device) + length * gone).argsort(dim=1)
    moved = units.gather(1, order[..., None].expand_as(units))
    kept = length - gone.sum(dim=1)
    return moved.masked_fill(
        torch.arange(length, device=units.device)[:, None] >= kept[:, None, None], HIDDEN
    )
