"""Scoring a sampler's images: every metric in one pass an extractor, over ranks and evaluation seeds."""

from __future__ import annotations

import hashlib
import inspect
import os
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from hydra.utils import get_class, instantiate
from torch import Tensor

from genbench.contracts import Fitted
from genbench.data.images import ImageSet
from genbench.harness.assembly import Assembly, build
from genbench.harness.distributed import Ranks
from genbench.harness.progress import Progress
from genbench.harness.sampling import Source
from genbench.leaderboard.record import Metric
from genbench.metrics.choice import check, choose
from genbench.metrics.evaluation import DEFAULT, Build, Evaluation, MetricValue, across_seeds
from genbench.metrics.extractors import Extractor
from genbench.metrics.reference import Reference, reference_moments


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
    """Extractors with their reference statistics, ready to score any number of samplers."""

    def __init__(
        self,
        extractors: Sequence[Extractor],
        device: torch.device,
        ranks: Ranks,
        measures: Sequence[Build] = (),
    ) -> None:
        self.extractors = [extractor.to(device) for extractor in extractors]
        self.measures = [*DEFAULT, *measures]
        self.device = device
        self.ranks = ranks
        self._references: list[Reference] = []

    def refer_to(self, images: ImageSet, batch_size: int) -> None:
        """Computes, or finds among those computed before, the statistics of the real images."""
        # Not in data_root, which is often read-only or somebody else's.
        cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "genbench" / "statistics"
        self._references = [
            reference_moments(images, extractor, cache, batch_size) for extractor in self.extractors
        ]

    def evaluate(self, chunks: Iterable[tuple[Tensor, Tensor]], n_samples: int) -> list[MetricValue]:
        """Every metric of this rank's images, given as (uint8 [B, C, H, W], index int64 [B])."""
        evaluations = [
            Evaluation(extractor, reference, n_samples, self.measures)
            for extractor, reference in zip(self.extractors, self._references, strict=True)
        ]
        for images, index in chunks:
            for evaluation in evaluations:
                evaluation.update(images, index)
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

            def chunks(seed: int = seed) -> Iterable[tuple[Tensor, Tensor]]:
                nonlocal seconds
                began = time.perf_counter()
                for drawn in source.draw(n_samples, seed):
                    _synchronise(self.device)
                    seconds += time.perf_counter() - began
                    counts.append(drawn.nfe)
                    if seed == seeds[0]:
                        kept.append(drawn.images)
                    if progress is not None:
                        progress.update(len(drawn.index))
                    yield drawn.images, drawn.index
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
    extractors = [_extractor(entry, metrics["weights"]) for entry in metrics["extractors"].values()]
    measures = [_measure(entry, metrics["n_samples"]) for entry in metrics["measures"].values()]
    also = metrics["also_inception"]
    lines: list[str] = []
    if also == "auto":
        # One rank finds out whether the weights can be had, and all do as it says.
        if assembly.ranks.leads:
            chosen, lines = choose(extractors, also, image_shape[0], assembly.device, metrics["weights"])
            also = len(chosen) > len(extractors)
        also = assembly.ranks.broadcast_text(str(also)) == "True"
    chosen, _ = choose(extractors, also, image_shape[0], assembly.device, metrics["weights"])
    lines += check(chosen, image_shape, metrics["n_samples"], assembly.device)
    return Scoring(chosen, assembly.device, assembly.ranks, measures), lines


def _extractor(entry: Mapping[str, Any], weights: str | None) -> Extractor:
    """An extractor as conf/ names it; `metrics.weights` goes to those that take weights."""
    accepts = "weights" in inspect.signature(get_class(entry["_target_"])).parameters
    return instantiate(entry, **({"weights": weights} if accepts else {}), _convert_="all")


def _measure(entry: Mapping[str, Any], n_samples: int) -> Build:
    """A further metric as conf/ names it: a factory of the number of samples and the features' dimension.

    Raises UserError where it cannot be built, or not be computed from so many samples.
    """
    factory = build(entry, "measure")
    factory(n_samples=n_samples, dimension=1)
    return lambda extractor, n: factory(n_samples=n, dimension=extractor.dimensions[extractor.features])


def to_record(value: MetricValue) -> Metric:
    """A metric's value as the record states it."""
    return Metric(
        name=value.name,
        value=value.value,
        std=value.std,
        split_std=value.split_std,
        n_seeds=value.n_seeds,
        n_samples=value.n_samples,
        extractor=value.extractor,
        extractor_sha256=value.extractor_sha256,
        reference=value.reference,
        reference_sha256=value.reference_sha256,
        quantiser=value.quantiser,
        resize=value.resize,
        better="lower" if value.better == "lower" else "higher",
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
