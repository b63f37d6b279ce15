"""One pass over samples for each extractor, and the named numbers that come out of it.

    images uint8, index  ->  extractor  ->  {role: layer}  ->  every measure's sums  ->  MetricValue

A measure reads layers by the role they play ("features", "logits") and keeps sums in float64, or rows by
image number, so results depend on the images and their numbers, not on batches, ranks or their order. Names
never mislead: Inception's metrics are `fid`, `is` and their like at 50,000 images, another extractor's
`fd_<name>` and `is_<name>` at its track's count, and any other count N is written behind: `fid@5000`,
`fd_digits@500`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from statistics import fmean, stdev

import torch
from torch import Tensor

from genbench.metrics.extractors import Extractor
from genbench.metrics.fid import FrechetDistance
from genbench.metrics.inception_score import InceptionScore
from genbench.metrics.measure import Better, Figure, Measure, Rows, Samples
from genbench.metrics.moments import SumTensors
from genbench.metrics.reference import Real
from genbench.ops.quantize import QUANTISER


@dataclass(frozen=True)
class MetricValue:
    """One number, and what a reader needs to trust it.

    value: over several evaluation seeds their mean, and then std their sample deviation (None for one
    seed); split_std: the deviation over the splits of a metric that has them, such as the inception
    score's ten (mean over seeds); bootstrap_std: the standard error over images, estimated from those of each
    seed (mean over seeds); n_samples: images scored for each seed; reference, reference_sha256: see
    `Reference`; of several layers or splits joined by "and", and the digest of their digests.
    """

    name: str
    value: float
    std: float | None
    split_std: float | None
    bootstrap_std: float | None
    n_seeds: int
    n_samples: int
    extractor: str
    extractor_sha256: str
    reference: str
    reference_sha256: str
    quantiser: str
    resize: str
    better: Better


DEFAULT: Sequence[Measure] = (FrechetDistance(), InceptionScore())
"""What is measured with every extractor that has the layers for it."""

BRIEF: Sequence[Measure] = (FrechetDistance(bootstrap=False), InceptionScore())
"""The same for a look on the way: without a standard error, which takes a fraction of a second."""


def reads(measure: Measure) -> frozenset[str]:
    """The roles of all layers a measure uses."""
    return measure.requires | measure.compares | measure.keeps


def fitting(measures: Iterable[Measure], extractor: Extractor) -> list[Measure]:
    """Those of `measures` for which `extractor` has every layer, in their order."""
    return [measure for measure in measures if reads(measure) <= extractor.roles.keys()]


class Evaluation:
    """The measures of one extractor over `n_samples` images numbered 0 ... n_samples - 1.

    Every rank makes one, updates it with its own images, calls `reduce`, and then `result`. Images numbered
    n_samples or above are left out, so that ranks may pad their last batch. Measures that need layers which
    the extractor has not are left out.
    """

    def __init__(
        self, extractor: Extractor, real: Real, n_samples: int, measures: Sequence[Measure] = DEFAULT
    ) -> None:
        self.extractor, self.real, self.n_samples = extractor, real, n_samples
        dimensions = sizes(extractor)
        self._measures = fitting(measures, extractor)
        self._sums = [measure.start(n_samples, dimensions) for measure in self._measures]
        kept = sorted({extractor.roles[role] for measure in self._measures for role in measure.keeps})
        self._rows = {layer: Rows(n_samples, extractor.dimensions[layer]) for layer in kept}
        self._seen = torch.zeros(n_samples, dtype=torch.float64)
        self._labels = torch.zeros(n_samples, dtype=torch.int64)  # the class plus one; 0 where unknown

    def update(self, images: Tensor, index: Tensor, labels: Tensor | None = None) -> None:
        """Adds images uint8 [B, C, H, W] whose numbers are `index`, int64 [B]. Each number may come once.

        labels: int64 [B], the classes they were drawn for, where they were.
        """
        index = index.cpu()
        wanted = index < self.n_samples
        if not bool(wanted.all()):
            labels = None if labels is None else labels[wanted.to(labels.device)]
            images, index = images[wanted.to(images.device)], index[wanted]
        if len(images) == 0:
            return
        found = self.extractor(images)
        layers = {role: found[layer] for role, layer in self.extractor.roles.items()}
        for measure, sums in zip(self._measures, self._sums, strict=True):
            sums.update({role: layers[role] for role in measure.requires}, index)
        for layer, rows in self._rows.items():
            rows.update(found[layer], index)
        self._seen.index_add_(0, index, torch.ones(len(index), dtype=torch.float64))
        if labels is not None:
            self._labels[index] = labels.cpu() + 1

    def merge(self, other: Evaluation) -> None:
        """Adds what `other`, of the same extractor, count and measures, has seen."""
        for mine, theirs in zip(self._sums, other._sums, strict=True):
            mine.merge(theirs)
        for layer, rows in self._rows.items():
            rows.merge(other._rows[layer])
        self._seen += other._seen
        self._labels += other._labels

    def reduce(self, sum_tensors: SumTensors, device: torch.device | str = "cpu") -> None:
        """Becomes the evaluation over all ranks. A collective: every rank calls it once."""
        for sums in self._sums:
            sums.reduce(sum_tensors, device)
        for rows in self._rows.values():
            rows.reduce(sum_tensors, device)
        seen, labels = self._seen.to(device), self._labels.to(device)
        sum_tensors([seen, labels])
        self._seen, self._labels = seen.cpu(), labels.cpu()

    def result(self) -> list[MetricValue]:
        """The figures of every measure. Raises ValueError unless each of n_samples images was seen once."""
        wrong = (self._seen != 1).nonzero().flatten().tolist()
        if wrong:
            raise ValueError(
                f"{len(wrong)} of {self.n_samples} images were not seen exactly once, the first is number "
                f"{wrong[0]} ({int(self._seen[wrong[0]])} times)"
            )
        samples = self._samples()
        figures = [figure for sums in self._sums for figure in sums.compute(samples, self.real)]
        return [self._value(figure) for figure in figures]

    def _samples(self) -> Samples:
        roles = self.extractor.roles.items()
        layers = {role: self._rows[layer].rows for role, layer in roles if layer in self._rows}
        labels = self._labels - 1
        return Samples(self.n_samples, layers, labels if bool((labels >= 0).all()) else None)

    def _value(self, figure: Figure) -> MetricValue:
        against = figure.against or [self.real()]
        digests = [reference.sha256 for reference in against]
        name = self.extractor.metric(figure.kind)
        return MetricValue(
            name=name if self.n_samples == self.extractor.standard_count else f"{name}@{self.n_samples}",
            value=figure.value,
            std=None,
            split_std=figure.split_std,
            bootstrap_std=figure.bootstrap_std,
            n_seeds=1,
            n_samples=self.n_samples,
            extractor=self.extractor.name,
            extractor_sha256=self.extractor.sha256,
            reference=" and ".join(reference.images for reference in against),
            reference_sha256=digests[0] if len(digests) == 1 else _joint(digests),
            quantiser=QUANTISER,
            resize=self.extractor.resize,
            better=figure.better,
        )


def sizes(extractor: Extractor) -> Mapping[str, int]:
    """The dimension of each layer, by the role it plays."""
    return {role: extractor.dimensions[layer] for role, layer in extractor.roles.items()}


def across_seeds(results: Iterable[Sequence[MetricValue]]) -> list[MetricValue]:
    """Mean and sample deviation over evaluation seeds, from one list of values a seed, in the first one's
    order.

    Raises ValueError where the lists are not of the same metrics (name, extractor, reference).
    """
    columns = list(zip(*results, strict=True))
    summary = []
    for values in columns:
        first = values[0]
        unlike = {"value": first.value, "split_std": first.split_std, "bootstrap_std": first.bootstrap_std}
        if any(replace(value, **unlike) != first for value in values):
            raise ValueError(f"{first.name} was not computed in the same way for every seed")
        summary.append(
            replace(
                first,
                value=fmean(v.value for v in values),
                std=stdev(v.value for v in values) if len(values) > 1 else None,
                split_std=_mean([v.split_std for v in values]),
                bootstrap_std=_mean([v.bootstrap_std for v in values]),
                n_seeds=len(values),
            )
        )
    return summary


def _mean(spreads: Sequence[float | None]) -> float | None:
    known = [spread for spread in spreads if spread is not None]
    return fmean(known) if known else None


def _joint(digests: Sequence[str]) -> str:
    return sha256("".join(digests).encode()).hexdigest()
