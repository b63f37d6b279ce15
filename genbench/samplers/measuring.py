"""Estimates asked for outside sampling: of training images, to learn from; of nothing, to see their kind."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

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


@torch.inference_mode()
def example(model: Any) -> Posterior:
    """An estimate of nothing in particular, to see what is in it."""
    device = None
    if isinstance(model, nn.Module):
        device = next((each.device for each in chain(model.parameters(), model.buffers())), None)
    nothing = torch.zeros(1, *model.image_shape, device=device)
    return model.denoise(nothing, torch.ones((), dtype=torch.float64))
