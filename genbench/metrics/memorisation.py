"""Are training images repeated? Three diagnostics, shown and never ranked by: copies do well by all else.

With d(x) the distance from x to the nearest training image, in the features of the extractor:

    authenticity          the share of samples further from their nearest training image than that one is from
                          its own nearest (Alaa et al. 2022): about a half where samples are like new data,
                          0 where all are copies
    c_t                   C_T of Meehan, Chaudhuri and Dasgupta (2020): in each cell of a partition, the
                          z-score of the Mann-Whitney statistic that d is larger for samples than for test
                          images; the mean over cells, weighted by their test images. About 0 for new data,
                          below -3 a sure sign of copying, far above 0 of underfitting
    train_distance_ratio  median d of samples over median d of test images: 1 for new data, 0 for copies

The last two need unseen real images, the test split. An extractor that was itself trained on the training
split may place its images apart from all others, unseen ones and samples alike: read them beside each other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import sqrt

import numpy as np
import torch
from torch import Tensor

from genbench.errors import UserError
from genbench.metrics.measure import Figure, OfSets, Samples
from genbench.metrics.reference import Real
from genbench.ops.neighbours import Euclidean, neighbours

ENOUGH = 20
"""Samples a cell must have to count, as its authors and dgm-eval choose."""

ROUNDS = 50
"""Lloyd's iterations; cells need not be the best, only the same for samples and test images."""


class Memorisation(OfSets):
    """Authenticity, C_T over cells (three, as dgm-eval), and the ratio of distances to training images."""

    splits = frozenset({"train", "test"})

    def __init__(self, cells: int = 3) -> None:
        if cells < 1:
            raise UserError(f"C_T needs a cell at least: found cells={cells}")
        self.cells = cells

    def check(self, n: int, dimensions: Mapping[str, int]) -> None:
        least = ENOUGH * self.cells
        if n < least:
            raise UserError(
                f"metrics.n_samples={n}: {self.cells} cells of {ENOUGH} samples need {least}; type "
                f"metrics.n_samples={least} or more, or leave measures=memorisation out"
            )

    def compute(self, samples: Samples, real: Real) -> Sequence[Figure]:
        train, test = real(split="train"), real(split="test")
        generated = samples.layers["features"]
        seen, unseen = (part.features().to(generated.device) for part in (train, test))
        closest, distance = nearest(generated, seen)
        _, usual = nearest(unseen, seen)
        _, apart = nearest(seen, seen)
        ratio = float(distance.median() / usual.median().clamp(min=torch.finfo(usual.dtype).tiny))
        values = {
            "authenticity": float((distance > apart[closest]).double().mean()),
            "c_t": c_t(generated, unseen, seen, self.cells),
            "train_distance_ratio": ratio,
        }
        return [Figure(kind, value, "neither", against=[train, test]) for kind, value in values.items()]


def nearest(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """For each of x [n, D]: which of y [N, D] is nearest, int64 [n], and how far, [n].

    Where y is x itself no point is its own neighbour.
    """
    metric = Euclidean()
    index = neighbours(x, y, 1, metric)[:, 0]
    return index, metric.between(x, y[index])


def c_t(generated: Tensor, test: Tensor, train: Tensor, cells: int) -> float:
    """C_T of features [m, D] with unseen [n, D] and training ones [l, D], in so many cells of k-means.

    Distances are to the training images of the same cell. Cells without test images, or with fewer than 20
    samples, do not count; where none is left, all of space is one cell.
    """
    centres = k_means(train, cells)
    members = [nearest(part, centres)[0] for part in (generated, test, train)]
    scores, weights = [], []
    for cell in range(len(centres)):
        q, p, t = (part[of == cell] for part, of in zip((generated, test, train), members, strict=True))
        if len(q) >= ENOUGH and len(p) and len(t):
            scores.append(z_score(nearest(q, t)[1], nearest(p, t)[1]))
            weights.append(len(p))
    if not scores:
        return z_score(nearest(generated, train)[1], nearest(test, train)[1])
    return sum(w * z for w, z in zip(weights, scores, strict=True)) / sum(weights)


def z_score(q: Tensor, p: Tensor) -> float:
    """The Mann-Whitney statistic of q [m] being larger than p [n], as a z-score: N(0, 1) for equal laws.

    U = #{q_i > p_j} + #{q_i = p_j} / 2, mean m n / 2, variance m n (m + n + 1) / 12.
    """
    m, n = len(q), len(p)
    p = p.sort().values
    below, up_to = torch.searchsorted(p, q), torch.searchsorted(p, q, right=True)
    u = float((below + up_to).double().sum() / 2)
    return (u - m * n / 2) / sqrt(m * n * (m + n + 1) / 12)


def k_means(x: Tensor, cells: int, seed: int = 0) -> Tensor:
    """Centres [K, D] of at most `cells` cells of x [n, D], by Lloyd's algorithm from random points of x."""
    start = np.random.RandomState(seed).choice(len(x), min(cells, len(x)), replace=False)
    centres = x[torch.from_numpy(start).to(x.device)]
    for _ in range(ROUNDS):
        owner = nearest(x, centres)[0]
        counts = owner.bincount(minlength=len(centres))
        sums = torch.zeros_like(centres).index_add_(0, owner, x)
        moved = torch.where(counts[:, None] > 0, sums / counts.clamp(min=1)[:, None], centres)
        if torch.equal(moved, centres):
            break
        centres = moved
    return centres
