"""The likelihood of unseen images, where `metrics` ask for it: one number beside those of the samples."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from genbench.contracts import Generator
from genbench.harness.assembly import Assembly, build
from genbench.leaderboard.record import Metric
from genbench.ops.quantize import dequantize
from genbench.ops.random import Keys


def check_likelihood(model: Generator, config: Mapping[str, Any]) -> None:
    """Raises UserError where a likelihood is asked for that `model` has not. Called before training."""
    if config["metrics"]["likelihood"] is not None:
        build(config["metrics"]["likelihood"], "likelihood").check(model)


@torch.no_grad()
def measure_likelihood(assembly: Assembly, model: Generator) -> list[Metric]:
    """Mean bits per dimension over the test split, over all ranks; nothing where none is asked for.

    Image i has the noise of its own number, whatever the batch or rank. A collective: every rank calls it.
    """
    metrics = assembly.config["metrics"]
    if metrics["likelihood"] is None:
        return []
    likelihood = build(metrics["likelihood"], "likelihood")
    likelihood.check(model)
    images, ranks = assembly.images("test"), assembly.ranks
    model.eval()
    total = torch.zeros((), dtype=torch.float64, device=assembly.device)
    share = torch.arange(ranks.rank, len(images), ranks.world, device=assembly.device)
    for index in share.split(metrics["batch_size"]):
        keys = Keys(index, metrics["seeds"][0])
        total += likelihood(model, dequantize(images.images[index]), images.levels, keys).sum()
    ranks.sum_tensors([total])
    return [
        Metric(
            name=likelihood.name,
            value=float(total) / len(images),
            std=None,
            n_seeds=1,
            n_samples=len(images),
            extractor=None,
            extractor_sha256=None,
            reference=f"test, {len(images)} images of {images.levels} grey levels",
            reference_sha256=images.sha256,
            quantiser=None,
            resize=None,
            better="lower",
        )
    ]
