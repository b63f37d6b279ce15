"""Normalisation that is told the class: one scale and shift for each.

    y = gamma(c) N(x) + beta(c),    gamma(c) = gamma_0 + W_gamma c,    beta(c) = beta_0 + W_beta c

N is any normalisation without scale and shift of its own and c the embedding of the class. W starts at zero
(kexue.fm 7124), so that every class starts with the plain normalisation and the gradient reaches W at once.
With batch normalisation this is the conditional batch norm of class-conditional GANs (Miyato & Koyama 2018).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from genbench.networks.initialisation import zeroed


class ConditionalNorm(nn.Module):
    """The formula above over the channels of x, [B, channels] or [B, channels, H, W].

    norm: without affine parameters; condition: the size of c, 0 for a normalisation that is told nothing.
    """

    def __init__(self, norm: nn.Module, channels: int, condition: int = 0) -> None:
        super().__init__()
        self.norm = norm
        self.scale = nn.Parameter(torch.ones(channels))
        self.shift = nn.Parameter(torch.zeros(channels))
        self.told = zeroed(nn.Linear(condition, 2 * channels, bias=False)) if condition else None

    def forward(self, x: Tensor, condition: Tensor | None = None) -> Tensor:
        """condition: [B, condition], the embeddings c; None for a normalisation that is told nothing."""
        scale, shift = self.scale, self.shift
        if self.told is not None:
            delta_scale, delta_shift = self.told(condition).chunk(2, dim=1)
            scale, shift = scale + delta_scale, shift + delta_shift
        trailing = (1,) * (x.ndim - 2)
        normal = self.norm(x)
        return torch.addcmul(
            shift.unflatten(-1, (-1, *trailing)), normal, scale.unflatten(-1, (-1, *trailing))
        )


def conditional_batch_norm(channels: int, condition: int = 0) -> ConditionalNorm:
    """Batch normalisation over [B, channels, H, W] with one scale and shift for each class."""
    return ConditionalNorm(nn.BatchNorm2d(channels, affine=False), channels, condition)
