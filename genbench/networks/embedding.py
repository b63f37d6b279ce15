"""What a network is told besides the image, as vectors: the time, and the class.

    positional   [sin(w_k s t), cos(w_k s t)],     w_k geometric from 1 to 1/10,000     (Vaswani et al. 2017)
    Fourier      [sin(2 pi w_k t), cos(2 pi w_k t)],  w_k ~ N(0, scale^2), drawn once   (Tancik et al. 2020)

The first suits times of the order of 1 to 1000, such as DDPM's 0 ... 999; the second logarithms of noise
levels, of which small differences matter (NCSN++, Song et al. 2021).
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genbench.contracts import UserError


def sinusoidal_embedding(time: Tensor, dimension: int, longest: float = 10_000.0) -> Tensor:
    """[sin(w_k time)] then [cos(w_k time)], w_k geometric from 1 to 1/`longest` (Vaswani et al. 2017).

    time: [B], of any dtype; returns float32 [B, dimension], its last column zero where `dimension` is odd.
    """
    half = dimension // 2
    exponent = torch.arange(half, dtype=torch.float32, device=time.device) / max(half - 1, 1)
    angle = time.float()[:, None] * torch.exp(-math.log(longest) * exponent)
    embedding = torch.cat((angle.sin(), angle.cos()), dim=1)
    return F.pad(embedding, (0, dimension - 2 * half))


class Positional(nn.Module):
    """Sinusoids of `scale` times the time; [B] of any dtype to float32 [B, features]."""

    def __init__(self, features: int, scale: float = 1.0) -> None:
        super().__init__()
        self.features = features
        self.scale = scale

    def forward(self, time: Tensor) -> Tensor:
        return sinusoidal_embedding(self.scale * time, self.features)


class Fourier(nn.Module):
    """Sinusoids of random frequencies, N(0, scale^2) periods a unit of time; [B] to float32 [B, features].

    The frequencies are drawn at construction, are not trained, and are stored with the weights: without them
    the weights mean nothing. `features` is even (UserError otherwise), half of it sines and half cosines.
    """

    frequencies: Tensor

    def __init__(self, features: int, scale: float = 16.0) -> None:
        super().__init__()
        if features % 2:
            raise UserError(
                f"network.embedding.features={features}: Fourier features are pairs of a sine and a cosine; "
                f"set it to {features + 1}"
            )
        self.features = features
        self.register_buffer("frequencies", scale * torch.randn(features // 2))

    def forward(self, time: Tensor) -> Tensor:
        angle = 2 * math.pi * time.float()[:, None] * self.frequencies
        return torch.cat((angle.sin(), angle.cos()), dim=1)


def with_label(embedded: Tensor, label: nn.Embedding | None, labels: Tensor | None) -> Tensor:
    """`embedded` [B, features] plus each image's row of `label`, whose last row stands for "no label".

    labels: int64 [B], -1 for "no label", which is also what None means. Raises UserError where labels are
    given to a network that has no embedding for them.
    """
    if label is None:
        if labels is not None:
            raise UserError("labels were given to a network without classes: set network.classes")
        return embedded
    if labels is None:
        labels = torch.full((len(embedded),), -1, dtype=torch.int64, device=embedded.device)
    return embedded + label(torch.where(labels < 0, label.num_embeddings - 1, labels))
