"""The one update every linear sampler step is: a weighted sum of tensors, plus scaled noise.

out = sum_i c_i x_i + n z,     z ~ N(0, I) from (key, step, stream)
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from genbench.ops.random import Randomness, Stream


def expand(value: Tensor | float, like: Tensor) -> Tensor:
    """`value` of shape [] or [B] as a tensor of `like`'s dtype and device that broadcasts over [B, ...]."""
    value = torch.as_tensor(value).to(device=like.device, dtype=like.dtype)
    return value.reshape(value.shape + (1,) * (like.ndim - value.ndim)) if value.ndim else value


def combine(
    coefficients: Sequence[Tensor],
    tensors: Sequence[Tensor],
    noise_coefficient: Tensor | None = None,
    randomness: Randomness | None = None,
    step: int = 0,
    stream: Stream = Stream.STEP,
) -> Tensor:
    """The update above, in the dtype of the first tensor.

    coefficients: float64, shape [] or [B], one for each tensor [B, ...]; noise_coefficient likewise. No noise
    is drawn where the noise coefficient is a scalar zero. Raises ValueError for a noise coefficient without
    randomness.
    """
    out = tensors[0] * expand(coefficients[0], tensors[0])
    for coefficient, tensor in zip(coefficients[1:], tensors[1:], strict=True):
        out.addcmul_(tensor, expand(coefficient, out))
    if noise_coefficient is None or (noise_coefficient.ndim == 0 and float(noise_coefficient) == 0):
        return out
    if randomness is None:
        raise ValueError("combine: a noise coefficient was given without randomness to draw from")
    noise = randomness.normal(out.shape[1:], step, stream).to(out.dtype)
    return torch.addcmul(out, noise, expand(noise_coefficient, out))
