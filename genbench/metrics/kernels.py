"""Maximum mean discrepancies: how far apart two sets are in the space of a kernel's functions.

    MMD^2 = E k(x, x') + E k(y, y') - 2 E k(x, y),    x, x' real, y, y' generated, all independent

(Gretton et al. 2012). KID (Binkowski et al. 2018) takes k(x, y) = (x.y / D + 1)^3 and the unbiased estimate,
without the pairs of an image with itself: its expectation does not depend on the number of images, and for
equal laws it is 0, so that estimates fall on both sides. CMMD (Jayasumana et al. 2024) takes unit CLIP
embeddings, k(x, y) = exp(-|x - y|^2 / (2 sigma^2)) with sigma = 10, all pairs, and 1,000 times the result.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from genbench.errors import UserError
from genbench.metrics.measure import Figure, OfSets, Samples
from genbench.metrics.reference import Real

SEED = 2020
"""torch-fidelity's: with it the subsets are the same images, and the numbers the same numbers."""

SIGMA, SCALE = 10.0, 1000.0
"""CMMD's bandwidth and scale, as its authors publish it."""

TILE = 4096
"""Rows by columns of the kernel at once: 128 MiB of float64."""


class KID(OfSets):
    """The kernel inception distance: the mean over `subsets` random pairs of subsets of `size` images.

    Where there are fewer images than `size`, subsets are the whole set in another order: the estimate stays
    unbiased and only its `split_std`, the deviation over subsets, loses its meaning. (That deviation is of
    the subsets, not of their mean.) Products are in float64: the three terms nearly cancel.
    """

    def __init__(self, subsets: int = 100, size: int = 1000) -> None:
        if subsets < 1 or size < 2:
            raise UserError(f"KID of {subsets} subsets of {size} images: type subsets from 1, size from 2 up")
        self.subsets, self.size = subsets, size

    def check(self, n: int, dimensions: Mapping[str, int]) -> None:
        if n < 2:
            raise UserError(f"metrics.n_samples={n}: KID needs 2 samples at least")

    def compute(self, samples: Samples, real: Real) -> Sequence[Figure]:
        generated = samples.layers["features"]
        values = kernel_distances(generated, real().features().to(generated.device), self.subsets, self.size)
        return [Figure("kid", float(values.mean()), "lower", split_std=float(values.std(correction=0)))]


class CMMD(OfSets):
    """CMMD, for extractors with an embedding on the unit sphere, which CLIP alone is."""

    keeps = frozenset({"embedding"})

    def compute(self, samples: Samples, real: Real) -> Sequence[Figure]:
        reference = real("embedding")
        generated = samples.layers["embedding"]
        value = gaussian_discrepancy(reference.features().to(generated.device), generated)
        return [Figure("cmmd", value, "lower", against=[reference])]


def kernel_distances(generated: Tensor, real: Tensor, subsets: int, size: int) -> Tensor:
    """KID's estimate on so many pairs of subsets of features [n, D] and [N, D]: float64 [subsets]."""
    size = min(size, len(generated), len(real))
    # RandomState's stream is frozen by NumPy, and drawn from in torch-fidelity's order.
    random = np.random.RandomState(SEED)
    values = []
    for _ in range(subsets):
        first = generated[_drawn(random, len(generated), size).to(generated.device)].double()
        second = real[_drawn(random, len(real), size).to(real.device)].double()
        values.append(_unbiased(first, second).cpu())
    return torch.stack(values)


def gaussian_discrepancy(x: Tensor, y: Tensor) -> float:
    """CMMD of embeddings x [N, D] and y [n, D], over all pairs, in tiles."""
    return SCALE * (_gaussian_mean(x, x) + _gaussian_mean(y, y) - 2 * _gaussian_mean(x, y))


def _drawn(random: np.random.RandomState, n: int, size: int) -> Tensor:
    return torch.from_numpy(random.choice(n, size, replace=False))


def _unbiased(x: Tensor, y: Tensor) -> Tensor:
    """The unbiased estimate of MMD^2 for the cubic kernel on x and y, both [m, D]."""
    m = len(x)
    pairs = m * (m - 1)
    within = sum((k.sum() - k.diagonal().sum()) / pairs for k in (_cubic(x, x), _cubic(y, y)))
    return within - 2 * _cubic(x, y).mean()


def _cubic(x: Tensor, y: Tensor) -> Tensor:
    return (x @ y.T).div_(x.shape[1]).add_(1).pow_(3)


def _gaussian_mean(x: Tensor, y: Tensor) -> float:
    """The mean of the Gaussian kernel over all pairs of x [N, D] and y [n, D]."""
    total = 0.0
    for rows in x.double().split(TILE):
        for columns in y.double().split(TILE):
            squares = rows.square().sum(1)[:, None] + columns.square().sum(1) - 2 * rows @ columns.T
            total += float(squares.div_(-2 * SIGMA**2).exp_().sum())
    return total / (len(x) * len(y))
