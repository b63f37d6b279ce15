"""Estimates of training images at the times a sampler visits: what it learns of a model after training."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from torch import Tensor

from genbench.contracts import Batch, Posterior
from genbench.ops.random import Randomness


def estimates(
    model: Any, times: Tensor, batches: Iterable[Batch], randomness: Randomness, images: int
) -> Iterator[tuple[int, Tensor, Posterior]]:
    """(number of the time, x0 [B, C, H, W], estimate of it), for each batch and time.

    images: how many are enough; batches may be endless; each is corrupted anew at every time.
    """
    seen = 0
    for batch in batches:
        x0, labels = batch.images, batch.labels if getattr(model, "classes", 0) else None
        for number, t in enumerate(times):
            x_t = model.corruption.apply(x0, model.corruption.draw(x0.shape, randomness), t)
            yield number, x0, model.denoise(x_t, t, labels)
        seen += len(x0)
        if seen >= images:
            break
