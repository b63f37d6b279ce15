"""Scoring a sampler's images: every metric in one pass an extractor, over ranks and evaluation seeds."""

from __future__ import annotations

import hashlib
import inspect
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from typing import Any

import torch
from hydra.utils import get_class, instantiate
from torch import Tensor

from genbench.contracts import Fitted, UserError
from genbench.data.images import ImageSet
from genbench.harness.assembly import Assembly, build
from genbench.harness.distributed import Ranks
from genbench.harness.fetched import cached
from genbench.harness.progress import Progress
from genbench.harness.sampling import Source
from genbench.leaderboard.record import Metric
from genbench.metrics.choice import check, check_measures, choose
from genbench.metrics.evaluation import BRIEF, DEFAULT, Evaluation, MetricValue, across_seeds, fitting
from genbench.metrics.extractors import Extractor
from genbench.metrics.measure import Measure
from genbench.metrics.reference import Real, refer

Chunk = tuple[Tensor, Tensor, Tensor | None]
"""Images uint8 [B, C, H, W], their numbers int64 [B], and their classes int64 [B] where they have them."""


@dataclass(frozen=True)
class Scored:
    """What scoring found. images: uint8 [N, C, H, W] of the first evaluation seed, in order, on the CPU."""

    metrics: Sequence[Metric]
    nfe_mean: float
    nfe_max: int
    seconds_per_image: float
    images: Tensor
    fitted_sha256: str | None

    @property
    def main(self) -> Metric:
        """The number a leaderboard ranks by: the first one."""
        return self.metrics[0]


class Scoring:
    """Extractors with their real images, ready to score any number of samplers.

    measures: what is computed besides the two measures that every run has.
    """

    def __init__(
        self,
        extractors: Sequence[Extractor],
        device: torch.device,
        ranks: Ranks,
        measures: Sequence[Measure] = (),
    ) -> None:
        self.extractors = [extractor.to(device) for extractor in extractors]
        self.measures = [*DEFAULT, *measures]
        self.device = device
        self.ranks = ranks
        self._real: list[Real] = []

    def refer_to(self, images: Callable[[str], ImageSet], split: str, batch_size: int) -> None:
        """Computes, or finds among what was computed before, what measures need of the real images.

        images: gives a split by its name; split: the reference. Every rank calls this.
        """
        # Not in data_root, which is often read-only or somebody else's.
        cache = cached() / "statistics"
        self._real = []
        for extractor in self.extractors:
            measures = fitting(self.measures, extractor)
            splits = {split}.union(*(measure.splits for measure in measures))
            whole = frozenset().union(*(measure.keeps for measure in measures))
            roles = whole.union({"features"}, *(measure.compares for measure in measures))
            layers = {
                (role, name): layer
                for name in sorted(splits)
                for role, layer in refer(images(name), extractor, roles, whole, cache, batch_size).items()
            }
            self._real.append(Real(split, layers))

    def brief(self) -> Scoring:
        """The same with no more than the two measures every run has: for a look on the way, at few images."""
        scoring = copy(self)
        scoring.measures = [*BRIEF]
        return scoring

    def evaluate(self, chunks: Iterable[Chunk], n_samples: int) -> list[MetricValue]:
        """Every metric of this rank's images."""
        evaluations = [
            Evaluation(extractor, real, n_samples, self.measures)
            for extractor, real in zip(self.extractors, self._real, strict=True)
        ]
        for images, index, labels in chunks:
            for evaluation in evaluations:
                evaluation.update(images, index, labels)
        values = []
        for evaluation in evaluations:
            evaluation.reduce(self.ranks.sum_tensors, self.device)
            values += evaluation.result()
        return values

    def score(
        self, source: Source, n_samples: int, seeds: Sequence[int], progress: Progress | None = None
    ) -> Scored:
        """Draws and scores `n_samples` images for each evaluation seed."""
        results, kept, counts = [], [], []
        seconds = 0.0
        for seed in seeds:

            def chunks(seed: int = seed) -> Iterable[Chunk]:
                nonlocal seconds
                began = time.perf_counter()
                for drawn in source.draw(n_samples, seed):
                    _synchronise(self.device)
                    seconds += time.perf_counter() - began
                    counts.append(drawn.nfe)
                    if seed == seeds[0]:
                        # Ranks gather on their devices; alone, as many as asked for need not fit on one.
                        kept.append(drawn.images.cpu() if self.ranks.world == 1 else drawn.images)
                    if progress is not None:
                        progress.update(len(drawn.index))
                    yield drawn.images, drawn.index, drawn.labels
                    began = time.perf_counter()

            results.append(self.evaluate(chunks(), n_samples))
        nfe = torch.cat(counts)
        totals = torch.tensor([nfe.sum(), len(nfe), seconds], dtype=torch.float64, device=self.device)
        largest = self.ranks.gather_rows(nfe.max().reshape(1).to(self.device))
        self.ranks.sum_tensors([totals])
        return Scored(
            metrics=[to_record(value) for value in across_seeds(results)],
            nfe_mean=float(totals[0] / totals[1]),
            nfe_max=int(largest.max()),
            seconds_per_image=float(totals[2] / totals[1]),
            images=_in_order(self.ranks.gather_rows(torch.cat(kept)), n_samples, self.ranks.world).cpu(),
            fitted_sha256=fitted_sha256(source.fitted),
        )


def build_scoring(
    assembly: Assembly, metrics: Mapping[str, Any], image_shape: tuple[int, int, int]
) -> tuple[Scoring, list[str]]:
    """The extractors `metrics` names, and lines saying what was decided; see `genbench.metrics.choice`."""
    weights = given_weights(metrics)
    extractors = [_extractor(entry, weights.get(name)) for name, entry in metrics["extractors"].items()]
    measures: dict[str, Measure] = {
        name: build(entry, f"measure {name}") for name, entry in metrics["measures"].items()
    }
    also, of_inception = metrics["also_inception"], weights.get("inception")
    lines: list[str] = []
    if also == "auto":
        # One rank finds out whether the weights can be had, and all do as it says.
        if assembly.ranks.leads:
            chosen, lines = choose(extractors, also, image_shape[0], assembly.device, of_inception)
            also = len(chosen) > len(extractors)
        also = assembly.ranks.broadcast_text(str(also)) == "True"
    chosen, _ = choose(extractors, also, image_shape[0], assembly.device, of_inception)
    lines += check(chosen, image_shape, metrics["n_samples"], assembly.device)
    lines += check_measures(measures, chosen, metrics["n_samples"])
    return Scoring(chosen, assembly.device, assembly.ranks, list(measures.values())), lines


def given_weights(metrics: Mapping[str, Any]) -> dict[str, str]:
    """The files of weights that `metrics.weights` gives, by the extractor's name.

    One path is that of the one extractor which takes weights, Inception's where none of those chosen does
    (it may be added to them). Raises UserError where it is not clear whose it is.
    """
    given = metrics["weights"]
    takers = [name for name, entry in metrics["extractors"].items() if _takes_weights(entry)] or ["inception"]
    if given is None:
        return {}
    if isinstance(given, Mapping):
        if unknown := sorted(set(given) - {*takers, "inception"}):
            raise UserError(
                f"metrics.weights names {', '.join(unknown)}; of the extractors chosen, weights are taken by "
                f"{', '.join(takers)}."
            )
        return dict(given)
    if len(takers) > 1:
        each = ", ".join(f"{name}: PATH" for name in takers)
        raise UserError(
            f"metrics.weights={given}, but {' and '.join(takers)} take weights; "
            f"type metrics.weights='{{{each}}}'."
        )
    return {takers[0]: given}


def _takes_weights(entry: Mapping[str, Any]) -> bool:
    return "weights" in inspect.signature(get_class(entry["_target_"])).parameters


def _extractor(entry: Mapping[str, Any], weights: str | None) -> Extractor:
    """An extractor as conf/ names it, with the weights that the user gave for it."""
    return instantiate(entry, **({} if weights is None else {"weights": weights}), _convert_="all")


def to_record(value: MetricValue) -> Metric:
    """A metric's value as the record states it."""
    return Metric(
        name=value.name,
        value=value.value,
        std=value.std,
        split_std=value.split_std,
        bootstrap_std=value.bootstrap_std,
        n_seeds=value.n_seeds,
        n_samples=value.n_samples,
        extractor=value.extractor,
        extractor_sha256=value.extractor_sha256,
        reference=value.reference,
        reference_sha256=value.reference_sha256,
        quantiser=value.quantiser,
        resize=value.resize,
        better=value.better,
    )


def fitted_sha256(fitted: Fitted) -> str | None:
    """SHA-256 over what a sampler learnt, by name; None where it learnt nothing."""
    if not fitted:
        return None
    digest = hashlib.sha256()
    for name in sorted(fitted):
        tensor = fitted[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()


def _in_order(images: Tensor, count: int, world: int) -> Tensor:
    """Images gathered rank by rank, rank r holding r, r + world, ..., in the order of their numbers."""
    if world == 1:
        return images
    index = torch.cat([torch.arange(rank, count, world) for rank in range(world)])
    ordered = torch.empty_like(images)
    ordered[index.to(images.device)] = images
    return ordered


def _synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
