"""Dropout whose mask is cheap on a CPU.

dropout(x) = x m / E[m],    m = 1 with probability 1 - p, else 0, independently for every element
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

_LANES = 2**16


def dropout_(x: Tensor, p: float, training: bool) -> Tensor:
    """Dropout of the dense tensor `x` in place, with probability `p` in [0, 1); `x` itself outside training.

    On a CPU, PyTorch may draw a double for every element, one after the other, which takes a tenth of a small
    U-Net's training step. Here one 64-bit integer of torch's generator decides for four elements: p becomes
    the nearest multiple of 2^-16 and the scale belongs to that multiple, so the expectation is exactly x.
    Elsewhere, and under torch.compile, which draws in parallel, it is PyTorch's own.
    """
    if not training or p == 0:
        return x
    if x.device.type != "cpu" or torch.compiler.is_compiling():
        return F.dropout(x, p, inplace=True)
    dropped = round(p * _LANES)
    words = torch.empty(-(-x.numel() // 4), dtype=torch.int64).random_(-(2**63), None)
    lanes = words.view(torch.int16).as_strided(x.shape, x.stride())  # in x's own memory order
    mask = (lanes >= dropped - _LANES // 2).to(x.dtype)
    return x.mul_(mask.mul_(_LANES / (_LANES - dropped)))
