"""What a sampler learns from training data after training."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import closing
from itertools import count

from genbench import contracts
from genbench.contracts import Batch, Fitted, Sampler
from genbench.data.batches import Batches
from genbench.harness.assembly import Assembly
from genbench.harness.progress import Progress
from genbench.harness.seeding import seed_torch
from genbench.ops.random import Successive

FIT_BATCH = 500


def fit(sampler: Sampler, model: contracts.Generator, assembly: Assembly) -> Fitted:
    """Fits `sampler` on the training split; every rank does, and all take what the first found.

    Batches come in a fixed order, unflipped, for as long as the sampler asks. Its randomness is a function
    of the seed, the same on every device.
    """
    seed = assembly.config["seed"]
    seed_torch(seed, "fit")
    model.eval()
    with closing(_batches(assembly)) as batches:
        fitted = sampler.fit(model, batches, Successive(FIT_BATCH, seed, assembly.device))
    fitted = {name: fitted[name].to(assembly.device).contiguous() for name in sorted(fitted)}
    assembly.ranks.broadcast(list(fitted.values()))
    return fitted


def _batches(assembly: Assembly) -> Generator[Batch]:
    """Endless; the data are read, and progress is shown, when the first is asked for.

    Few images repeat within a batch.
    """
    batches = Batches(assembly.images("train"), FIT_BATCH, assembly.config["seed"], flip=False)
    with Progress(None, "fitting the sampler", "image", visible=assembly.ranks.leads) as progress:
        for index in count():
            progress.update(FIT_BATCH)
            yield batches(index)
