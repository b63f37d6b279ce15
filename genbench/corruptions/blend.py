"""Blending with an image of something else, such as falling snow (Bansal et al. 2022).

    x_t = (1 - t) x_0 + t z,     z an image drawn from a law of its own

With z Gaussian this is the path of rectified flow. Any other law will do: x_t and x0 tell z.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor

from genbench.contracts import Fitted, Law, Noise, Posterior, UserError
from genbench.corruptions.clock import Recorrupted, Timed
from genbench.corruptions.fading import GeometricWidth, Heat
from genbench.corruptions.gaussian import GaussianLaw
from genbench.ops.combine import combine
from genbench.ops.random import Randomness, Stream


class Texture(ABC):
    """A law of images to blend with."""

    @abstractmethod
    def draw(self, shape: Sequence[int], randomness: Randomness, stream: Stream) -> Tensor:
        """One image for each of `shape` [B, C, H, W], float32 in [-1, 1]."""


class Snow(Texture):
    """White flakes on black, the same in all channels: smooth noise above a threshold.

    size: of the flakes, as the standard deviation of the smoothing in pixels; cover: about the share of
    pixels that are more white than black.
    """

    def __init__(self, size: float = 0.7, cover: float = 0.3) -> None:
        if not 0 < cover < 1:
            raise UserError(f"corruption.texture.cover={cover}: expected a share between 0 and 1.")
        self.smoothing = Heat(GeometricWidth(size / 2, size))
        self.cover = cover

    def draw(self, shape: Sequence[int], randomness: Randomness, stream: Stream) -> Tensor:
        noise = randomness.normal((1, *shape[2:]), stream=stream)
        gains, _ = self.smoothing.gains(torch.ones(()), *shape[2:])
        # Of unit variance on average over the image.
        smooth = self.smoothing.apply(noise, torch.ones(())) / float(gains.square().mean()) ** 0.5
        threshold = torch.special.ndtri(torch.tensor(1 - self.cover, dtype=torch.float64))
        return torch.tanh(2 * (smooth - float(threshold))).expand(*shape)


class Blend(Timed):
    """texture: the law of z."""

    invertible_in_noise = True

    def __init__(self, texture: Texture, steps: int | None = None) -> None:
        super().__init__(steps)
        self.texture = texture

    def draw(self, shape: Sequence[int], randomness: Randomness) -> Tensor:
        return self.texture.draw(shape, randomness, Stream.NOISE)

    def apply(self, x0: Tensor, noise: Noise, t: Tensor) -> Tensor:
        return combine((1 - t, t), (x0, noise))

    def renoised(self, x_t: Tensor, x0: Posterior, s: Tensor, t: Tensor, fresh: float) -> Law:
        if fresh == 1:
            return Recorrupted(self, x0.mean, s)
        if fresh > 0:
            raise UserError(
                "Textures do not mix as Gaussian noise does. Type rule=fresh or rule=deterministic."
            )
        kept = s / t
        return GaussianLaw((kept, 1 - kept), (x_t, x0.estimate), torch.zeros_like(kept))

    def terminal(self, shape: Sequence[int], randomness: Randomness, fitted: Fitted) -> Tensor:
        return self.texture.draw(shape, randomness, Stream.TERMINAL)
