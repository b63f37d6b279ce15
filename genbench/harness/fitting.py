"""What a sampler learns from training data after training."""

from __future__ import annotations

from collections.abc import Iterator

from genbench.contracts import Batch, Fitted, Generator, Sampler
from genbench.data.batches import Batches
from genbench.harness.assembly import Assembly
from genbench.harness.seeding import seed_torch
from genbench.ops.random import Ambient

FIT_BATCH = 500


def fit(sampler: Sampler, model: Generator, assembly: Assembly) -> Fitted:
    """Fits `sampler` on the training split; the same on every rank, since all see the same batches.

    Batches come in a fixed order, unflipped, for as long as the sampler asks.
    """
    if type(sampler).fit is Sampler.fit:
        return {}
    images = assembly.images("train")
    size = min(FIT_BATCH, len(images))
    batches = Batches(images, size, assembly.config["seed"], flip=False)

    def endless() -> Iterator[Batch]:
        number = 0
        while True:
            yield batches(number)
            number += 1

    seed_torch(assembly.config["seed"], "fit")
    model.eval()
    return sampler.fit(model, endless(), Ambient(size, assembly.device))
