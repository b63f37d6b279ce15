"""Group normalisation, the scale and shift of a condition, and SiLU: a network's most frequent three layers.

    y  = silu(a x^ + b),    a = w (1 + scale),    b = v (1 + scale) + shift
    x^ = (x - mean) / sqrt(variance + epsilon)

mean and variance are those of an image's channels of one group (Wu & He 2018); w and v are the layer's weight
and bias; scale and shift, one pair an image and channel, make it adaptive (Nichol & Dhariwal 2021).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

FUSED = (torch.float32, torch.bfloat16, torch.float16)
"""What the kernel reads; it computes in float32."""


def group_norm_silu(
    x: Tensor,
    groups: int,
    weight: Tensor,
    bias: Tensor,
    epsilon: float,
    scale: Tensor | None = None,
    shift: Tensor | None = None,
    activate: bool = True,
) -> Tensor:
    """The formula above, of x's shape and memory order; without silu where `activate` is false.

    x: [B, C, ...], C a multiple of `groups`; weight, bias: [C]; scale, shift: [B, C], each may be left out.

    On a GPU it is one kernel each way, in x's dtype: autocast's bfloat16 is read and written as it is, where
    PyTorch's layers would go through float32 tensors. For the way back it keeps x and two numbers a group.
    Elsewhere, and in float64, it is PyTorch's layers one after the other.
    """
    if x.is_cuda and x.dtype in FUSED:
        from genbench.ops.kernels.group_norm_silu import forward

        return forward(x, weight, bias, scale, shift, groups, epsilon, activate)[0]
    return reference(x, groups, weight, bias, epsilon, scale, shift, activate)


def reference(
    x: Tensor,
    groups: int,
    weight: Tensor,
    bias: Tensor,
    epsilon: float,
    scale: Tensor | None = None,
    shift: Tensor | None = None,
    activate: bool = True,
) -> Tensor:
    """`group_norm_silu` by PyTorch's own layers, differentiable any number of times."""
    normal = F.group_norm(x, groups, weight, bias, epsilon)
    if scale is not None and shift is not None:
        normal = torch.addcmul(_beside(shift, x), normal, 1 + _beside(scale, x))
    elif scale is not None:
        normal = normal * (1 + _beside(scale, x))
    elif shift is not None:
        normal = normal + _beside(shift, x)
    return F.silu(normal) if activate else normal


def _beside(values: Tensor, x: Tensor) -> Tensor:
    """[B, C] as it broadcasts over [B, C, ...]."""
    return values.reshape(values.shape + (1,) * (x.ndim - 2))
