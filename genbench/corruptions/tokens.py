"""Categorical pixels: grey levels as tokens, and laws over them.

Token k of V is the value 2 k / (V - 1) - 1, so that an image of tokens is an image: networks, samplers and
metrics see what they see of any other model.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from genbench.contracts import Posterior
from genbench.ops.categorical import categorical
from genbench.ops.random import Randomness, Stream


def tokens(images: Tensor, levels: int) -> Tensor:
    """The grey levels 0 ... V - 1 nearest to images in [-1, 1], int64 of their shape."""
    return ((images + 1) * ((levels - 1) / 2)).round().long().clamp(0, levels - 1)


def values(grey: Tensor, levels: int) -> Tensor:
    """The values in [-1, 1] of grey levels, float32; the inverse of `tokens`."""
    return (grey.double() * (2 / (levels - 1)) - 1).float()


def one_hot(grey: Tensor, levels: int) -> Tensor:
    """float32 [..., V] of grey levels [...]."""
    return F.one_hot(grey, levels).float()


def expectation(logits: Tensor) -> Tensor:
    """The mean value of pixels with logits [..., V]."""
    levels = logits.shape[-1]
    return logits.softmax(dim=-1) @ values(torch.arange(levels, device=logits.device), levels)


def probabilities(x0: Posterior, levels: int) -> Tensor:
    """What `x0` says of each grey level, [..., V]: by its logits, or its mean for certain if it has none."""
    return one_hot(tokens(x0.mean, levels), levels) if x0.logits is None else x0.logits.softmax(dim=-1)


@dataclass(frozen=True)
class CategoricalLaw:
    """Independent pixels over V grey levels; probabilities: [B, C, H, W, V], of any positive sums."""

    probabilities: Tensor

    @property
    def mean(self) -> Tensor:
        """The most probable levels' values."""
        return values(self.probabilities.argmax(dim=-1), self.probabilities.shape[-1])

    def sample(self, randomness: Randomness, step: int) -> Tensor:
        uniform = randomness.uniform(self.probabilities.shape[1:-1], step, Stream.STEP)
        return values(categorical(self.probabilities, uniform), self.probabilities.shape[-1])
