"""Where sampling starts when the fully degraded image still says something of the image it was.

A law of F_1(x0) is fitted to training images and kept with the run.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from genbench.contracts import Fitted
from genbench.ops.random import Randomness, Stream


class Terminal(ABC):
    """A law of images, learnt from examples."""

    @abstractmethod
    def fit(self, batches: Iterable[Tensor]) -> Fitted:
        """What is kept, from endless batches of degraded images [B, C, H, W]."""

    @abstractmethod
    def placeholder(self, shape: Sequence[int]) -> Fitted:
        """Tensors such as `fit` returns for images of `shape` [C, H, W]."""

    @abstractmethod
    def draw(self, shape: Sequence[int], randomness: Randomness, fitted: Fitted) -> Tensor:
        """One draw for each image of `shape` [B, C, H, W], float32."""


def _taken(batches: Iterable[Tensor], count: int) -> Tensor:
    """The first `count` images, [count, C, H, W]."""
    taken: list[Tensor] = []
    for batch in batches:
        taken.append(batch)
        if sum(map(len, taken)) >= count:
            break
    return torch.cat(taken)[:count]


def _needed(fitted: Fitted, name: str) -> Tensor:
    if name not in fitted:
        raise ValueError(f"the corruption's terminal law has not been fitted: {name} is missing")
    return fitted[name]


class FittedNormal(Terminal):
    """A Gaussian with the mean and covariance of `images` degraded images.

    Directions of less than `least` of the largest variance are left out: a blurred image has few.
    """

    def __init__(self, images: int = 5000, least: float = 1e-6) -> None:
        self.images, self.least = images, least

    def fit(self, batches: Iterable[Tensor]) -> Fitted:
        images = _taken(batches, self.images).double()
        flat = images.flatten(1)
        mean = flat.mean(dim=0)
        variances, directions = torch.linalg.eigh((flat - mean).T @ (flat - mean) / len(flat))
        large = variances > self.least * variances[-1].clamp(min=1e-30)
        factors = (directions[:, large] * variances[large].sqrt()).T
        return {"terminal_mean": mean.reshape(images.shape[1:]).float(), "terminal_factors": factors.float()}

    def placeholder(self, shape: Sequence[int]) -> Fitted:
        mean = torch.zeros(*shape)
        return {"terminal_mean": mean, "terminal_factors": torch.ones(1, mean.numel())}

    def draw(self, shape: Sequence[int], randomness: Randomness, fitted: Fitted) -> Tensor:
        mean, factors = (_needed(fitted, f"terminal_{name}") for name in ("mean", "factors"))
        normals = randomness.normal((len(factors),), stream=Stream.TERMINAL)
        # A product in float64 does not depend on how many rows it has, to the last digit of float32.
        drawn = normals.double() @ factors.double()
        return (drawn.reshape(len(drawn), *mean.shape) + mean.double()).float()


class Examples(Terminal):
    """One of `images` degraded training images, as inverse heat dissipation starts (Rissanen et al. 2023)."""

    def __init__(self, images: int = 5000) -> None:
        self.images = images

    def fit(self, batches: Iterable[Tensor]) -> Fitted:
        return {"terminal_examples": _taken(batches, self.images)}

    def placeholder(self, shape: Sequence[int]) -> Fitted:
        return {"terminal_examples": torch.zeros(1, *shape)}

    def draw(self, shape: Sequence[int], randomness: Randomness, fitted: Fitted) -> Tensor:
        examples = _needed(fitted, "terminal_examples")
        chosen = (randomness.uniform((), stream=Stream.TERMINAL).double() * len(examples)).long()
        return examples[chosen].clone()
