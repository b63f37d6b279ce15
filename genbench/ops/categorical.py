"""Draws from categorical laws: one uniform number a row, compared with running sums of its probabilities.

The draw is the first category whose running sum is above u times the whole. Running sums are float64; on a
GPU one kernel makes them in float32 while it reads the law, so that a uniform within rounding of the end of a
category (of 256, some 1e-6 of draws) may fall to its neighbour.
"""

from __future__ import annotations

import torch
from torch import Tensor

FUSED = (torch.float32, torch.bfloat16, torch.float16)
"""Laws that the kernel reads."""


def categorical(probabilities: Tensor, uniform: Tensor, decided: Tensor | None = None) -> Tensor:
    """The category in which `uniform` falls, int64 [...].

    probabilities: [..., V], not negative, of any positive sum; uniform: [...] in (0, 1); decided: bool [...],
    rows that need no draw: their laws are not looked at, and 0 stands in their place. A category of
    probability zero is never drawn.
    """
    if probabilities.is_cuda and probabilities.dtype in FUSED:
        from genbench.ops.kernels.categorical import draw

        return draw(probabilities, uniform, decided, False, 1.0)
    if decided is not None and uniform.device.type != "cpu":
        return categorical(probabilities, uniform).masked_fill(decided, 0)  # counting rows would be a wait
    if decided is not None:
        drawn = torch.zeros(uniform.shape, dtype=torch.int64, device=uniform.device)
        drawn[~decided] = categorical(probabilities[~decided], uniform[~decided])
        return drawn
    ends = probabilities.cumsum(dim=-1, dtype=torch.float64)
    whole = ends[..., -1:].contiguous()
    reached = uniform.double()[..., None] * whole
    # Rounding must not push a draw past the last category that has any probability.
    last = torch.searchsorted(ends, whole)
    return torch.minimum(torch.searchsorted(ends, reached, right=True), last)[..., 0]


def categorical_of_logits(
    logits: Tensor, uniform: Tensor, temperature: float = 1.0, decided: Tensor | None = None
) -> Tensor:
    """`categorical` of softmax(logits / temperature), which on a GPU is never written down.

    logits: [..., V], the last axis anywhere in memory; -inf for a category that is never drawn.
    """
    if logits.is_cuda and logits.dtype in FUSED:
        from genbench.ops.kernels.categorical import draw

        return draw(logits, uniform, decided, True, 1 / temperature)
    scaled = logits if temperature == 1 else logits / temperature
    return categorical(scaled.softmax(dim=-1), uniform, decided)
