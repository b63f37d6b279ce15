"""Orthonormal bases in which a degradation scales each coefficient of an image: cosines and block means.

A separable basis of a side of n pixels is an orthonormal matrix M [n, n]; an image X has the coefficients
M X M' and is had back as M' C M. Products of small matrices are exact, fast and differentiable everywhere.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from itertools import pairwise

import torch
from torch import Tensor


class Basis(ABC):
    """Of images [B, C, H, W]; matrices are made once for each side, dtype and device."""

    def __init__(self) -> None:
        self._matrices: dict[tuple[int, torch.dtype, torch.device], Tensor] = {}

    @abstractmethod
    def matrix(self, side: int) -> Tensor:
        """The basis vectors as rows, float64 [side, side]."""

    def _pair(self, x: Tensor) -> tuple[Tensor, Tensor]:
        found = []
        for side in x.shape[-2:]:
            key = side, x.dtype, x.device
            if key not in self._matrices:
                # Made while sampling, it must still serve in training.
                with torch.inference_mode(False):
                    self._matrices[key] = self.matrix(side).to(x.device, x.dtype)
            found.append(self._matrices[key])
        return found[0], found[1]

    def forward(self, x: Tensor) -> Tensor:
        """Coefficients [B, C, H, W] of images [B, C, H, W]."""
        rows, columns = self._pair(x)
        return rows @ x @ columns.T

    def inverse(self, coefficients: Tensor) -> Tensor:
        """Images of coefficients; the inverse of `forward`."""
        rows, columns = self._pair(coefficients)
        return rows.T @ coefficients @ columns


class Cosines(Basis):
    """The discrete cosine transform of type II: eigenvectors of the heat equation with reflecting edges."""

    def matrix(self, side: int) -> Tensor:
        k = torch.arange(side, dtype=torch.float64)
        waves = torch.cos(math.pi * k[:, None] * (k + 0.5) / side)
        waves[0] *= 0.5**0.5
        return waves * (2 / side) ** 0.5

    def decay(self, height: int, width: int) -> Tensor:
        """lambda_nm = pi^2 (n^2 / H^2 + m^2 / W^2): e^(-lambda tau) is heat after time tau; float64 [H, W].

        A blur of standard deviation s pixels has tau = s^2 / 2 (Rissanen et al. 2023, eq. 6).
        """
        rows, columns = ((math.pi * torch.arange(n, dtype=torch.float64) / n) ** 2 for n in (height, width))
        return rows[:, None] + columns


class BlockMeans(Basis):
    """A basis adapted to means over blocks of 2, 4, 8, ... pixels, then over the whole side.

    Row r has a level: 0 for what is lost in blocks of two, 1 for what more is lost in blocks of four, and so
    on; the mean of all has the last. Blocks double as long as they divide the side; what is then left is
    averaged at once (28 pixels: blocks of 2, 4, and 28).
    """

    def blocks(self, side: int) -> list[int]:
        """Block sizes in pixels, ascending from 1 to the side."""
        sizes = [1]
        while sizes[-1] < side:
            double = 2 * sizes[-1]
            sizes.append(double if side % double == 0 else side)
        return sizes

    def levels(self, side: int) -> Tensor:
        """The level of each row, int64 [side]."""
        sizes = self.blocks(side)
        counts = [side // fine - side // coarse for fine, coarse in pairwise(sizes)]
        parts = [torch.full((count,), level) for level, count in enumerate([*counts, 1])]
        return torch.cat(parts[::-1])

    def matrix(self, side: int) -> Tensor:
        rows = []
        sizes = self.blocks(side)
        for fine, coarse in pairwise(sizes):
            # Within a coarse block, the vectors on its fine blocks that are orthogonal to their mean.
            parts = coarse // fine
            contrasts = Cosines().matrix(parts)[1:]
            spread = contrasts.repeat_interleave(fine, dim=1) / fine**0.5
            rows.append(torch.kron(torch.eye(side // coarse, dtype=torch.float64), spread))
        rows.append(torch.full((1, side), side**-0.5, dtype=torch.float64))
        return torch.cat(rows[::-1])
