"""Draws from categorical laws: one uniform number a row, compared with running sums of its probabilities."""

from __future__ import annotations

import torch
from torch import Tensor


def categorical(probabilities: Tensor, uniform: Tensor) -> Tensor:
    """The category in which `uniform` falls, int64 [...].

    probabilities: [..., V], not negative, of any positive sum; uniform: [...] in (0, 1). A category of
    probability zero is never drawn.
    """
    ends = probabilities.double().cumsum(dim=-1)
    reached = uniform.double()[..., None] * ends[..., -1:]
    # Rounding must not push a draw past the last category that has any probability.
    last = (ends < ends[..., -1:]).sum(dim=-1)
    return torch.minimum((ends <= reached).sum(dim=-1), last)
