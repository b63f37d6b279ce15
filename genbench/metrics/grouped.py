"""Moments of features kept apart by group, and those of any weighted union of the groups.

    of group g:    n_g,  m_g,  S_g    as in `genbench.metrics.moments`
    of the union of w_g copies of each:
        n = sum_g w_g n_g,   m = sum_g w_g n_g m_g / n,   S = sum_g w_g (S_g + n_g (m_g - m)(m_g - m)^T)

One pass then serves the whole (w = 1), each part, and a bootstrap: w drawn as G draws with replacement from
the G groups (Efron 1979). Images are dealt to groups at random, so a group is a sample like the whole, and
what resampled groups do to a statistic is, up to a factor of sqrt(1 - 1 / G), what resampled images do. No
feature is kept: a replicate costs G D^2 additions where resampled images would cost n D^2.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from genbench.metrics.moments import Moments, SumTensors

DEAL_SEED = 2020
"""torch-fidelity's, with which its inception score shuffles."""

RESAMPLE_SEED = 0


class GroupedMoments:
    """Streaming moments of `groups` groups of features of dimension D: groups D^2 float64 numbers.

    The tensors live on the device of the first update.
    """

    def __init__(self, groups: int, dimension: int) -> None:
        self.groups = groups
        self._state = (
            torch.zeros(groups, dtype=torch.float64),
            torch.zeros(groups, dimension, dtype=torch.float64),
            torch.zeros(groups, dimension, dimension, dtype=torch.float64),
        )

    @property
    def counts(self) -> Tensor:
        """n_g, float64 [G]."""
        return self._state[0]

    def update(self, features: Tensor, group: Tensor) -> None:
        """Adds features [B, D], row i to group[i], int64 [B] in [0, G). Raises ValueError if not finite."""
        if len(features) == 0:
            return
        rows, group = features.detach().double(), group.to(features.device)
        if not bool(rows.sum(dim=0).isfinite().all()):
            raise ValueError("features contain NaN or infinity")
        self._move(rows.device)
        counts = torch.bincount(group, minlength=self.groups)
        mean = torch.zeros_like(self._state[1]).index_add_(0, group, rows) / counts.clamp(min=1)[:, None]
        # Each group's centred rows side by side, padded with rows of zeros: one product does all groups.
        order = group.argsort(stable=True)
        place = torch.arange(len(rows), device=rows.device) - (counts.cumsum(0) - counts)[group[order]]
        padded = rows.new_zeros(self.groups, int(counts.max()), rows.shape[1])
        padded[group[order], place] = rows[order] - mean[group[order]]
        self._join(counts.double(), mean, padded.mT @ padded)

    def merge(self, other: GroupedMoments) -> None:
        """Adds what `other`, of the same groups and dimension, has seen."""
        self._move(other.counts.device)
        self._join(*other._state)

    def reduce(self, sum_tensors: SumTensors, device: torch.device | str = "cpu") -> None:
        """Becomes the moments over all ranks; a collective, which ranks without images join too."""
        self._move(torch.device(device))
        counts, mean, scatter = self._state
        total, sums = counts.clone(), counts[:, None] * mean
        sum_tensors([total, sums])
        whole = sums / total.clamp(min=1)[:, None]
        scatter = scatter + counts[:, None, None] * _outer(mean - whole)
        sum_tensors([scatter])
        self._state = (total, whole, scatter)

    def union(self, weights: Tensor | None = None) -> Moments:
        """The moments of weights[g] copies of each group (int64 [G]); of every image once by default."""
        counts, means, scatters = self._state
        weight = counts.new_ones(self.groups) if weights is None else weights.to(counts)
        share = weight * counts
        n = share.sum()
        mean = (share @ means) / n.clamp(min=1)
        apart = means - mean
        scatter = torch.einsum("g,gij->ij", weight, scatters) + (share[:, None] * apart).T @ apart
        return Moments.from_state({"n": n.long().reshape(1), "mean": mean, "scatter": scatter})

    def only(self, group: int) -> Moments:
        """The moments of one group."""
        counts, means, scatters = self._state
        return Moments.from_state(
            {"n": counts[group].long().reshape(1), "mean": means[group], "scatter": scatters[group]}
        )

    def _move(self, device: torch.device) -> None:
        counts, mean, scatter = self._state
        self._state = (counts.to(device), mean.to(device), scatter.to(device))

    def _join(self, counts: Tensor, mean: Tensor, scatter: Tensor) -> None:
        mine, my_mean, my_scatter = self._state
        total = mine + counts
        safe = total.clamp(min=1)
        apart = mean - my_mean
        self._state = (
            total,
            my_mean + apart * (counts / safe)[:, None],
            my_scatter + scatter + (mine * counts / safe)[:, None, None] * _outer(apart),
        )


def dealt(n: int, groups: int) -> Tensor:
    """int64 [n]: the group of each of n images, as equal as can be: contiguous parts of a random order.

    It depends on n and `groups` alone. A random order, because images that somebody brings may be sorted.
    """
    # RandomState's stream is frozen by NumPy: the order is the same in every version.
    order = torch.from_numpy(np.random.RandomState(DEAL_SEED).permutation(n))
    owner = torch.empty(n, dtype=torch.int64)
    for group in range(groups):
        owner[order[group * n // groups : (group + 1) * n // groups]] = group
    return owner


def resamplings(groups: int, replicates: int) -> Tensor:
    """int64 [replicates, groups]: a bootstrap's draws of `groups` groups with replacement, one a row."""
    drawn = np.random.RandomState(RESAMPLE_SEED).randint(groups, size=(replicates, groups))
    return torch.from_numpy(drawn)


def _outer(rows: Tensor) -> Tensor:
    return rows[:, :, None] * rows[:, None, :]
