"""What a sampler learns from training data after training."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count

from genbench.contracts import Batch, Fitted, Generator, Sampler
from genbench.data.batches import Batches
from genbench.harness.assembly import Assembly
from genbench.harness.seeding import seed_torch
from genbench.ops.random import Ambient

FIT_BATCH = 500


def fit(sampler: Sampler, model: Generator, assembly: Assembly, most: int | None = None) -> Fitted:
    """Fits `sampler` on the training split; the same on every rank, since all see the same batches.

    Batches come in a fixed order, unflipped, for as long as the sampler asks, or `most` of them.
    """
    if type(sampler).fit is Sampler.fit:
        return {}
    images = assembly.images("train")
    size = min(FIT_BATCH, len(images))
    batches = Batches(images, size, assembly.config["seed"], flip=False)

    def numbered() -> Iterator[Batch]:
        for number in count() if most is None else range(most):
            yield batches(number)

    seed_torch(assembly.config["seed"], "fit")
    model.eval()
    return sampler.fit(model, numbered(), Ambient(size, assembly.device))
