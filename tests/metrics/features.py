"""Sets of features, real and generated, as measures are given them."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from genbench.metrics.measure import Figure, Measure, Samples
from genbench.metrics.moments import Moments
from genbench.metrics.reference import Real, Reference


def normal(n: int, dimension: int, seed: int = 0, mean: float = 0.0, scale: float = 1.0) -> Tensor:
    """n draws of N(mean, scale^2) in each dimension, float32."""
    generator = torch.Generator().manual_seed(seed)
    return mean + scale * torch.randn(n, dimension, generator=generator)


def real_of(role: str = "features", labels: Tensor | None = None, **splits: Tensor) -> Real:
    """Real images whose layer `role` is given by split; the first one is the reference."""
    layers = {
        (role, split): Reference(
            Moments.of(rows), f"{split}, {len(rows)} images", split[0] * 64, lambda rows=rows: rows, labels
        )
        for split, rows in splits.items()
    }
    return Real(next(iter(splits)), layers)


def measured(
    measure: Measure, features: Tensor, real: Real, labels: Tensor | None = None, role: str = "features"
) -> dict[str, Figure]:
    """The figures of `measure`, by kind, for features [n, D] that pass in three batches."""
    sums = measure.start(len(features), {role: features.shape[1]})
    for index in torch.arange(len(features)).chunk(3):
        sums.update({role: features[index]} if measure.requires else {}, index)
    kept = {role: features} if measure.keeps else {}
    figures = sums.compute(Samples(len(features), kept, labels), real)
    assert len({figure.kind for figure in figures}) == len(figures)
    return {figure.kind: figure for figure in figures}


def reduce(ranks: Sequence[Any]) -> None:
    """Calls `reduce` of each of `ranks` in a thread of its own, summing as a process group would."""
    meeting = threading.Barrier(len(ranks))
    table: list[list[Tensor]] = [[] for _ in ranks]

    def collective(rank: int) -> Any:
        def sum_tensors(tensors: list[Tensor]) -> None:
            table[rank] = [tensor.clone() for tensor in tensors]
            meeting.wait(60)
            totals = [torch.stack(column).sum(dim=0) for column in zip(*table, strict=True)]
            meeting.wait(60)
            for tensor, total in zip(tensors, totals, strict=True):
                tensor.copy_(total)

        return sum_tensors

    threads = [threading.Thread(target=rank.reduce, args=(collective(r),)) for r, rank in enumerate(ranks)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
