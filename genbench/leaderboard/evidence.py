"""What of a run's samples goes into a submission, so that its distances can be derived again.

    evidence/seed<k>.safetensors   images                   uint8 [K, H, W, C], samples 0 ... K - 1
                                   <extractor>.mean         float64 [D], of all samples
                                   <extractor>.covariance   float64 [D (D + 1) / 2]

all of the first evaluation seed. Moments are kept of the shipped extractors that scored the run; with them
lie the reference's, so `check` derives

    FD = |m - m_r|^2 + Tr(C + C_r - 2 (C C_r)^(1/2))

and compares it with the record. Of a metric over S evaluation seeds with sample deviation s, one seed's value
lies within s (S - 1) / sqrt(S) of the mean (Samuelson 1968); of one seed it is the value. `verify` draws the
images again from a checkpoint. Only a file that is, byte for byte, what writing its tensors gives is
accepted: there is room for nothing else in it. Torch is not imported here: several processes check a board of
ten thousand submissions, and each would pay for it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from genbench.errors import UserError
from genbench.leaderboard.record import Metric, Result
from genbench.leaderboard.rules import Rules
from genbench.metrics.gaussians import Gaussian, distance
from genbench.metrics.packed import pack, read_reference, reference_path, unpack

MOST_IMAGES = 64
"""Images kept of a run: as many as its sample grid shows."""

IMAGE_BYTES = 1 << 16
"""Bytes of the images kept, beyond the first: 64 of digits and Fashion-MNIST, 21 of CIFAR-10."""

TOLERANCE = 1e-6
"""By how much of both covariances' traces a distance derived again may differ. In float64 instead of float32
a distance of digits moved by 2e-10 of them; another processor's convolutions differ in the last bits of
float32, which stay far below 1e-6."""


@dataclass(frozen=True)
class Evidence:
    """Images uint8 [K, H, W, C] and, by extractor, the moments of all samples."""

    images: NDArray[np.uint8]
    moments: dict[str, Gaussian]


def kept_images(result: Result) -> int:
    """K: how many images are kept of a run's samples."""
    size = result.dataset.channels * result.dataset.resolution**2
    return min(MOST_IMAGES, result.sampling.n_samples, max(1, IMAGE_BYTES // size))


def to_bytes(images: NDArray[np.uint8], moments: Mapping[str, Gaussian]) -> bytes:
    """The file of images uint8 [K, H, W, C] and moments by extractor."""
    tensors: dict[str, NDArray[Any]] = {"images": images}
    for name, found in moments.items():
        tensors[f"{name}.mean"], tensors[f"{name}.covariance"] = pack(found)
    return save({name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()})


def from_bytes(contents: bytes, path: Path, result: Result, rules: Rules) -> Evidence:
    """What `to_bytes` wrote for a run with this result. Raises UserError, one line, for anything else."""
    data, kept = result.dataset, kept_images(result)
    shape: tuple[int, ...] = (kept, data.resolution, data.resolution, data.channels)
    expected = {"images": ("uint8", shape)}
    cards = {card.name: card for card in map(rules.card, result.metrics) if card is not None}
    for name, card in cards.items():
        size = card.features
        expected[f"{name}.mean"] = ("float64", (size,))
        expected[f"{name}.covariance"] = ("float64", (size * (size + 1) // 2,))
    try:
        tensors = load(contents)
    except (SafetensorError, ValueError, KeyError, TypeError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{path}: not an acceptable safetensors file: {reason}") from error
    if (found := {name: (t.dtype.name, t.shape) for name, t in tensors.items()}) != expected:
        wrong = sorted(name for name in found.keys() | expected if found.get(name) != expected.get(name))
        raise UserError(f"{path}: expected the tensors {', '.join(expected)}; {wrong[0][:100]!r} is another")
    if save(tensors) != contents:
        raise UserError(f"{path}: holds more than its tensors")
    for name, tensor in tensors.items():
        if tensor.dtype.kind == "f" and not bool((abs(tensor) <= 1e9).all()):
            raise UserError(f"{path}: {name} is not finite, or beyond 1e9")
    counts = {metric.extractor: metric.n_samples for metric in distances(result, rules)}
    moments = {
        name: unpack(counts[name], tensors[f"{name}.mean"], tensors[f"{name}.covariance"]) for name in cards
    }
    return Evidence(tensors["images"], moments)


def departures(evidence: Evidence, result: Result, rules: Rules) -> Iterator[str]:
    """Distances of the record that do not follow from the moments, one line each."""
    for metric in distances(result, rules):
        name = metric.extractor or ""
        found, (reference, _) = evidence.moments[name], read_reference(reference_path(name))
        if found.n < 2:
            yield f"{metric.name} is of {found.n} sample; a distance takes two at least"
            continue
        derived = distance(found, reference)
        traces = float(found.covariance.trace() + reference.covariance.trace())
        spread = (metric.std or 0.0) * (metric.n_seeds - 1) / math.sqrt(metric.n_seeds)
        if not abs(derived - metric.value) <= spread + TOLERANCE * traces:
            yield f"{metric.name} is {metric.value:.6g}, its moments give {derived:.6g}"


def distances(result: Result, rules: Rules) -> list[Metric]:
    """The metrics that moments are kept for: distances of shipped extractors, from the shipped statistics."""
    return [metric for metric in result.metrics if rules.card(metric) is not None]
