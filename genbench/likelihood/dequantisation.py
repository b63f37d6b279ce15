"""From grey levels to a density and back: uniform dequantisation (Theis, van den Oord & Bethge 2016).

Images have V grey levels at x_k = 2 k / (V - 1) - 1, k = 0 ... V - 1. Noise within a level,

    x = x_k + (2 u - 1) / (V - 1),    u ~ U[0, 1)

fills the line with cells of width 2 / (V - 1), and Jensen's inequality bounds the likelihood of the level:

    log2 P(k) >= E_u log2 p(x) + log2(2 / (V - 1))      for each dimension

Published figures with V = 256 often use x = 2 (k + u) / 256 - 1 instead. The two are the same up to a scale
of 256 / 255, which the density takes along: bits are the same, only their split into density and cell differs
(log2 127.5 here, 7 there). This form leaves the levels where training and sampling have them.
"""

from __future__ import annotations

import math

from torch import Tensor

from genbench.ops.random import Randomness, Stream


def dequantised(images: Tensor, levels: int, randomness: Randomness) -> Tensor:
    """float32 images [B, C, H, W] at the levels above, each pixel moved uniformly within its cell."""
    u = randomness.uniform(images.shape[1:], stream=Stream.DEQUANTISE)
    return images + (2 * u - 1) / (levels - 1)


def bits_per_dim(log_density: Tensor, dimensions: int, levels: int) -> Tensor:
    """Bits per dimension [B] from log p(x) in nats [B] of dequantised images of so many dimensions."""
    return -log_density / (dimensions * math.log(2)) + math.log2((levels - 1) / 2)
