"""What metrics are made of: measures, the sums they keep while images pass, and the figures that come out.

    Measure  --start(n, dimensions)-->  Sums  --update, merge, reduce-->  compute(samples, real)  -->  Figures

A measure is named in conf/ and holds settings, no data. Layers of an extractor are asked for by the role they
play ("features", "logits", "spatial", "embedding"), and one pass of the extractor serves every measure. What
can be summed is summed while it passes (`requires`); only for a measure that must see a set as a whole
(`keeps`) are all rows of a layer held, once for all such measures.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import torch
from torch import Tensor

from genbench.metrics.moments import SumTensors
from genbench.metrics.reference import Real, Reference

Better = Literal["lower", "higher", "neither"]
"""Which way a figure is better; "neither" is a diagnostic, to be shown and never ranked by."""


@dataclass(frozen=True)
class Figure:
    """One number of a measure.

    kind: "fd", "precision": what `Extractor.metric` turns into a name; split_std: the population deviation
    over splits or subsets, for measures that have them; bootstrap_std: the standard error that other images
    from the same model would show, estimated from these; against: the real images it was compared with, the
    evaluation's reference where empty.
    """

    kind: str
    value: float
    better: Better
    split_std: float | None = None
    bootstrap_std: float | None = None
    against: Sequence[Reference] = ()


@dataclass(frozen=True)
class Samples:
    """A whole set of samples: their number, the layers that were kept (by role, float32 [n, D] in the order
    of the images' numbers), and their classes, int64 [n], where they were drawn by class.
    """

    n: int
    layers: Mapping[str, Tensor] = field(default_factory=dict)
    labels: Tensor | None = None


class Sums(Protocol):
    """What a measure keeps of the images that pass: the same whatever the batches, the order or the ranks."""

    def update(self, layers: Mapping[str, Tensor], index: Tensor) -> None:
        """Adds images numbered `index` (int64 [B]) whose layers are float32 [B, D], by role."""

    def merge(self, other: Any) -> None:
        """Adds what another of the same kind has seen."""

    def reduce(self, sum_tensors: SumTensors, device: torch.device | str = "cpu") -> None:
        """Becomes the state over all ranks. A collective: every rank calls it."""

    def compute(self, samples: Samples, real: Real) -> Sequence[Figure]:
        """The figures; none where the measure does not apply, such as one by class to images without."""


class Measure(Protocol):
    """Something to be computed of an extractor's layers. Raises UserError, when made, for a wrong setting."""

    requires: frozenset[str]
    """The roles of the layers it reads as they pass."""
    compares: frozenset[str]
    """The roles of the layers of which it needs the real images' moments."""
    keeps: frozenset[str]
    """The roles of the layers that it needs whole, of the samples and of the real images."""
    splits: frozenset[str]
    """Splits of the data set that it compares with, besides the reference's."""

    def start(self, n: int, dimensions: Mapping[str, int]) -> Sums:
        """Sums for `n` images whose layers have `dimensions`, by role.

        Raises UserError where it cannot be computed from so many.
        """


class OfSets:
    """A measure of whole sets: it sums nothing and computes everything at the end, from the rows kept for it.

    Derive from it, say what it `keeps`, and write `compute`; `check` where not any number of images will do.
    """

    requires: frozenset[str] = frozenset()
    compares: frozenset[str] = frozenset()
    keeps: frozenset[str] = frozenset({"features"})
    splits: frozenset[str] = frozenset()

    def start(self, n: int, dimensions: Mapping[str, int]) -> Sums:
        self.check(n, dimensions)
        return self

    def check(self, n: int, dimensions: Mapping[str, int]) -> None:
        """Raises UserError where `n` samples are too few."""

    def update(self, layers: Mapping[str, Tensor], index: Tensor) -> None:
        pass

    def merge(self, other: Any) -> None:
        pass

    def reduce(self, sum_tensors: SumTensors, device: torch.device | str = "cpu") -> None:
        pass

    def compute(self, samples: Samples, real: Real) -> Sequence[Figure]:
        raise NotImplementedError


class Rows:
    """A layer's rows by image number, float32 [n, D] on the device of the first update."""

    def __init__(self, n: int, dimension: int) -> None:
        self.rows = torch.zeros(n, dimension)

    def update(self, layer: Tensor, index: Tensor) -> None:
        """Puts rows of `layer` [B, D] into the places `index` (int64 [B], each filled once)."""
        self.rows = self.rows.to(layer.device)
        self.rows[index.to(layer.device)] = layer.detach().float()

    def merge(self, other: Rows) -> None:
        """Adds what `other`, of the same shape, has seen: each row is zero in all but one of the two."""
        self.rows += other.rows.to(self.rows.device)

    def reduce(self, sum_tensors: SumTensors, device: torch.device | str = "cpu") -> None:
        """Becomes the rows over all ranks."""
        self.rows = self.rows.to(device)
        sum_tensors([self.rows])
