"""Categorical pixels: grey levels as tokens, and laws over them.

Token k of V is the value 2 k / (V - 1) - 1, so that an image of tokens is an image: networks, samplers and
metrics see what they see of any other model.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

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
    # Not torch's own one_hot, which makes it of int64 first: three times the memory.
    zeros = torch.zeros(*grey.shape, levels, device=grey.device)
    return zeros.scatter_(-1, grey[..., None], 1.0)


def raised(law: Tensor, grey: Tensor, by: Tensor) -> Tensor:
    """`law` [..., V], or logits, with `by` [...] more at each of the levels `grey` [...], in place."""
    return law.scatter_add_(-1, grey[..., None], by[..., None])


def drawn_alike(law: Tensor, uniform: Tensor) -> Tensor:
    """Grey levels int64 [B, *places] of one law for all images, [V] or [*places, V], of any positive sums.

    `genbench.ops.categorical` without a copy of the law for each image; uniform: [B, *places] in [0, 1).
    """
    ends = law.double().cumsum(dim=-1)
    places = ends[..., -1:] * uniform.double().movedim(0, -1)
    # A float32 number below 1, times the last end in float64, is below it: no draw is past the last level.
    return torch.searchsorted(ends, places.contiguous(), right=True).movedim(-1, 0)


def expectation(logits: Tensor) -> Tensor:
    """The mean value of pixels with logits [..., V]."""
    levels = logits.shape[-1]
    return logits.softmax(dim=-1) @ values(torch.arange(levels, device=logits.device), levels)


def surprise(logits: Tensor, grey: Tensor) -> Tensor:
    """-log p of grey levels [...] under logits [..., V], in nats: the cross-entropy, pixel by pixel."""
    return _Surprise.apply(logits, grey)


class _Surprise(torch.autograd.Function):
    """Its gradient p - 1 at the level, made in place: torch's own keeps all log p besides, and makes two.

    By softmax and log_softmax: a CPU's exp alone is slow where one certain level leaves the others e^-10,000.
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, grey: Tensor) -> Tensor:
        ctx.save_for_backward(logits, grey)
        return -logits.log_softmax(dim=-1).gather(-1, grey[..., None])[..., 0]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor, None]:
        logits, grey = ctx.saved_tensors
        p = logits.softmax(dim=-1)
        p.scatter_add_(-1, grey[..., None], torch.full_like(slope, -1.0)[..., None])
        return p.mul_(slope[..., None]), None


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
