"""Metrics beside torch-fidelity's: features, the matrix term of the Fréchet distance, precision and recall.

Speed does not depend on what a network has learnt, so Inception's weights are random ones of the right shapes
and nothing is downloaded.
"""

from __future__ import annotations

import io
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from genbench.metrics.extractors import Inception
from genbench.metrics.fid import frechet_distance
from genbench.metrics.manifolds import overlap
from genbench.metrics.moments import Moments
from genbench.speed.arithmetic import ALONE, arithmetic
from genbench.speed.bench import Bench
from genbench.speed.turns import Contestant, Row, compare


def rows(settings: Mapping[str, Any], bench: Bench) -> Iterator[Row]:
    """settings: batch_sizes, of images for the features; dimensions, of the matrices; images, whose
    neighbours are looked for, each side of precision and recall.
    """
    with tempfile.TemporaryDirectory() as folder:
        weights = random_weights(Path(folder) / "random.pth")
        ours, theirs = Inception(weights).to(bench.device), torch_fidelitys(weights, bench.device)
        for batch in settings["batch_sizes"]:
            generator = torch.Generator().manual_seed(0)
            drawn = torch.randint(0, 256, (batch, 3, 32, 32), dtype=torch.uint8, generator=generator)
            images = drawn.to(bench.device)
            contestants = [
                Contestant("genbench", lambda images=images: ours(images), batch),  # type: ignore[misc]
                Contestant(ALONE, arithmetic(lambda images=images: ours(images)).again, batch),  # type: ignore[misc]
                Contestant(
                    "torch-fidelity",
                    lambda images=images: _quietly(theirs, images),  # type: ignore[misc]
                    batch,
                ),
            ]
            what = f"Inception's features, batch {batch}, fp32"
            yield from compare("metrics", what, "image", contestants, bench.clock)
    for dimension in settings["dimensions"]:
        yield from _matrix_term(dimension, bench)
    for count in settings["images"]:
        yield from _precision_recall(count, bench)


def random_weights(path: Path) -> Path:
    """Writes a state dict of Inception's shapes to `path`; activations neither vanish nor explode."""
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    class Untrained(FeatureExtractorInceptionV3):  # type: ignore[misc]
        """As it is made, before it is given weights."""

        def load_state_dict(self, *args: Any, **kwargs: Any) -> None:
            return None

    nothing = io.BytesIO()
    torch.save({}, nothing)
    nothing.seek(0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = Untrained("inception-v3-compat", ["2048"], feature_extractor_weights_path=nothing)
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.Conv2d):
                module.weight.mul_(6**0.5)
    torch.save(network.state_dict(), path)
    return path


def torch_fidelitys(weights: Path, device: torch.device) -> nn.Module:
    """torch-fidelity's extractor of the layers that FID and IS read, as it sets it up itself."""
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    network: nn.Module = FeatureExtractorInceptionV3(
        "inception-v3-compat",
        [Inception.roles["features"], Inception.roles["logits"]],
        feature_extractor_weights_path=str(weights),
    )
    return network.eval().to(device)


@torch.no_grad()
def _quietly(network: nn.Module, images: Tensor) -> object:
    return network(images)


def statistics(dimension: int) -> tuple[Moments, Moments]:
    """Moments of two sets of correlated features, more of them than dimensions."""
    generator = torch.Generator().manual_seed(0)
    mix = torch.randn(2, dimension, dimension, generator=generator) / dimension**0.5
    features = torch.randn(2, 2 * dimension, dimension, generator=generator)
    first, second = (Moments.of(each @ matrix) for each, matrix in zip(features, mix, strict=True))
    return first, second


def by_square_root(a: Moments, b: Moments) -> float:
    """The Fréchet distance by scipy's matrix root, as Heusel et al. (2017) and their followers compute it."""
    from scipy import linalg

    first, second = a.covariance.cpu().numpy(), b.covariance.cpu().numpy()
    root = linalg.sqrtm(first @ second)
    difference = (a.mean - b.mean).cpu().numpy()
    return float(difference @ difference + np.trace(first + second - 2 * np.real(root)))


def by_torch_fidelity(a: Moments, b: Moments) -> float:
    """The same by torch-fidelity."""
    from torch_fidelity.metric_fid import KEY_METRIC_FID, fid_statistics_to_metric

    first, second = ({"mu": m.mean.cpu().numpy(), "sigma": m.covariance.cpu().numpy()} for m in (a, b))
    return float(fid_statistics_to_metric(first, second, False)[KEY_METRIC_FID])


def _matrix_term(dimension: int, bench: Bench) -> list[Row]:
    a, b = statistics(dimension)
    contestants = [
        Contestant("genbench", lambda: frechet_distance(a, b)),
        Contestant("torch-fidelity", lambda: by_torch_fidelity(a, b)),
        Contestant("scipy.linalg.sqrtm", lambda: by_square_root(a, b)),
    ]
    what = f"Fréchet distance of {dimension} features, on the CPU"
    return compare("metrics", what, "distance", contestants, bench.clock)


FEATURES = 2048
"""Numbers an image, as Inception gives."""


def _precision_recall(count: int, bench: Bench) -> list[Row]:
    generator = torch.Generator().manual_seed(0)
    drawn = torch.randn(2, count, FEATURES, generator=generator).to(bench.device)
    contestants = [
        Contestant("genbench", lambda: precision_recall(*drawn)),
        Contestant("torch-fidelity", lambda: balls_by_torch_fidelity(*drawn)),
    ]
    what = f"precision and recall of {count:,} images, {FEATURES} features"
    return compare("metrics", what, "pair", contestants, bench.clock)


def precision_recall(generated: Tensor, actual: Tensor) -> tuple[float, float]:
    """Of features [n, D] and [N, D], k = 3."""
    inside, covered = overlap(generated, actual, k=3)
    return float(inside.double().mean()), float(covered.double().mean())


def balls_by_torch_fidelity(generated: Tensor, actual: Tensor) -> tuple[float, float]:
    """The same by torch-fidelity, in its own tiles."""
    from torch_fidelity.metric_prc import calculate_precision_recall_full

    precision, recall = calculate_precision_recall_full(generated, actual)
    return float(precision), float(recall)
