"""What a sampler learns from training data after training."""

from __future__ import annotations

from itertools import count

from genbench.contracts import Fitted, Generator, Sampler
from genbench.data.batches import Batches
from genbench.harness.assembly import Assembly
from genbench.harness.seeding import seed_torch
from genbench.ops.random import Successive

FIT_BATCH = 500


def fit(sampler: Sampler, model: Generator, assembly: Assembly) -> Fitted:
    """Fits `sampler` on the training split; every rank does, and all take what the first found.

    Batches come in a fixed order, unflipped, for as long as the sampler asks. Its randomness is a function
    of the seed, the same on every device.
    """
    if type(sampler).fit is Sampler.fit:
        return {}
    images = assembly.images("train")
    size = min(FIT_BATCH, len(images))
    batches = Batches(images, size, assembly.config["seed"], flip=False)
    seed_torch(assembly.config["seed"], "fit")
    model.eval()
    fitted = sampler.fit(
        model, map(batches, count()), Successive(size, assembly.config["seed"], assembly.device)
    )
    fitted = {name: fitted[name].to(assembly.device).contiguous() for name in sorted(fitted)}
    assembly.ranks.broadcast(list(fitted.values()))
    return fitted
