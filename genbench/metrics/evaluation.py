"""One pass over samples for each extractor, and the named numbers that come out of it.

    images uint8, index  ->  extractor  ->  {role: layer}  ->  every metric's sums  ->  MetricValue

A metric reads layers by the role they play ("features", "logits") and keeps sums in float64, so results
depend on the images and their indices, not on batches, ranks or their order. Names never mislead:
Inception's metrics are `fid` and `is` at 50,000 images, another extractor's `fd_<name>` and `is_<name>` at
its track's count, and any other count N is written behind: `fid@5000`, `fd_digits@500`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from statistics import fmean, stdev
from typing import Any, Protocol

import torch
from torch import Tensor

from genbench.metrics.extractors import Extractor
from genbench.metrics.fid import FrechetDistance
from genbench.metrics.inception_score import InceptionScore
from genbench.metrics.moments import SumTensors
from genbench.metrics.reference import Reference
from genbench.ops.quantize import QUANTISER


class Metric(Protocol):
    """Something computed from an extractor's layers in one pass."""

    kind: str
    """"fd", "is": what `Extractor.metric` turns into a name."""
    better: str
    """"lower" or "higher"."""
    requires: frozenset[str]
    """The roles of the layers it reads: "features", "logits"."""

    def update(self, layers: dict[str, Tensor], index: Tensor) -> None:
        """Adds images numbered `index` (int64 [B]) whose layers are float32 [B, D], by role."""

    def merge(self, other: Any) -> None:
        """Adds what another of the same kind has seen."""

    def reduce(self, sum_tensors: SumTensors, device: torch.device | str = "cpu") -> None:
        """Becomes the state over all ranks."""

    def compute(self, reference: Reference) -> tuple[float, float | None]:
        """(value, deviation over splits or None)."""


@dataclass(frozen=True)
class MetricValue:
    """One number, and what a reader needs to trust it.

    value: over several evaluation seeds their mean, and then std their sample deviation (None for one
    seed); split_std: the deviation over the splits of a metric that has them, such as the inception
    score's ten (mean over seeds); n_samples: images scored for each seed; reference, reference_sha256: see
    `Reference`.
    """

    name: str
    value: float
    std: float | None
    split_std: float | None
    n_seeds: int
    n_samples: int
    extractor: str
    extractor_sha256: str
    reference: str
    reference_sha256: str
    quantiser: str
    resize: str
    better: str


Build = Callable[[Extractor, int], Metric]
"""A metric for an extractor and a number of samples."""

DEFAULT: Sequence[Build] = (
    lambda extractor, n: FrechetDistance(extractor.dimensions[extractor.features]),
    lambda extractor, n: InceptionScore(n, extractor.dimensions[extractor.logits]),
)


class Evaluation:
    """The metrics of one extractor over `n_samples` images numbered 0 ... n_samples - 1.

    Every rank makes one, updates it with its own images, calls `reduce`, and then `result`. Images numbered
    n_samples or above are left out, so that ranks may pad their last batch.
    """

    def __init__(
        self, extractor: Extractor, reference: Reference, n_samples: int, metrics: Sequence[Build] = DEFAULT
    ) -> None:
        self.extractor, self.reference, self.n_samples = extractor, reference, n_samples
        self.metrics = [build(extractor, n_samples) for build in metrics]
        self._seen = torch.zeros(n_samples, dtype=torch.float64)

    def update(self, images: Tensor, index: Tensor) -> None:
        """Adds images uint8 [B, C, H, W] whose numbers are `index`, int64 [B]. Each number may come once."""
        wanted = index < self.n_samples
        if not bool(wanted.all()):
            images, index = images[wanted.to(images.device)], index[wanted]
        if len(images) == 0:
            return
        found = self.extractor(images)
        layers = {"features": found[self.extractor.features], "logits": found[self.extractor.logits]}
        for metric in self.metrics:
            metric.update({role: layers[role] for role in metric.requires}, index)
        self._seen.index_add_(0, index.cpu(), torch.ones(len(index), dtype=torch.float64))

    def merge(self, other: Evaluation) -> None:
        """Adds what `other`, of the same extractor and count, has seen."""
        for mine, theirs in zip(self.metrics, other.metrics, strict=True):
            mine.merge(theirs)
        self._seen += other._seen

    def reduce(self, sum_tensors: SumTensors, device: torch.device | str = "cpu") -> None:
        """Becomes the evaluation over all ranks. A collective: every rank calls it once."""
        for metric in self.metrics:
            metric.reduce(sum_tensors, device)
        seen = self._seen.to(device)
        sum_tensors([seen])
        self._seen.copy_(seen)

    def result(self) -> list[MetricValue]:
        """One value a metric. Raises ValueError unless each of the n_samples images was seen exactly once."""
        wrong = (self._seen != 1).nonzero().flatten().tolist()
        if wrong:
            raise ValueError(
                f"{len(wrong)} of {self.n_samples} images were not seen exactly once, the first is number "
                f"{wrong[0]} ({int(self._seen[wrong[0]])} times)"
            )
        standard = self.n_samples == self.extractor.standard_count
        values = []
        for metric in self.metrics:
            value, spread = metric.compute(self.reference)
            name = self.extractor.metric(metric.kind)
            values.append(
                MetricValue(
                    name=name if standard else f"{name}@{self.n_samples}",
                    value=value,
                    std=None,
                    split_std=spread,
                    n_seeds=1,
                    n_samples=self.n_samples,
                    extractor=self.extractor.name,
                    extractor_sha256=self.extractor.sha256,
                    reference=self.reference.images,
                    reference_sha256=self.reference.sha256,
                    quantiser=QUANTISER,
                    resize=self.extractor.resize,
                    better=metric.better,
                )
            )
        return values


def across_seeds(results: Iterable[Sequence[MetricValue]]) -> list[MetricValue]:
    """Mean and sample deviation over evaluation seeds, from one list of values a seed, in the first one's
    order.

    Raises ValueError where the lists are not of the same metrics (name, extractor, reference).
    """
    columns = list(zip(*results, strict=True))
    summary = []
    for values in columns:
        first = values[0]
        if any(replace(v, value=first.value, split_std=first.split_std) != first for v in values):
            raise ValueError(f"{first.name} was not computed in the same way for every seed")
        spreads = [v.split_std for v in values if v.split_std is not None]
        summary.append(
            replace(
                first,
                value=fmean(v.value for v in values),
                std=stdev(v.value for v in values) if len(values) > 1 else None,
                split_std=fmean(spreads) if spreads else None,
                n_seeds=len(values),
            )
        )
    return summary
