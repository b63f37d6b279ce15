"""What a sampler learns from training data after training."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count

from genbench.contracts import Batch, Fitted, Generator, Sampler
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
    seed = assembly.config["seed"]
    seed_torch(seed, "fit")
    model.eval()
    fitted = sampler.fit(model, _batches(assembly), Successive(FIT_BATCH, seed, assembly.device))
    fitted = {name: fitted[name].to(assembly.device).contiguous() for name in sorted(fitted)}
    assembly.ranks.broadcast(list(fitted.values()))
    return fitted


def _batches(assembly: Assembly) -> Iterator[Batch]:
    """Endless; the data are read when the first is asked for. Few images repeat within a batch."""
    yield from map(Batches(assembly.images("train"), FIT_BATCH, assembly.config["seed"], flip=False), count())
