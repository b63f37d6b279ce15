"""One-step sampling: draw latents from N(0, I) and decode them."""

from __future__ import annotations

from torch import Tensor

from genbench.contracts import Decodes, Fitted, Sampler, Samples
from genbench.ops.random import Randomness, Stream
from genbench.samplers.counting import Counted


class Decode(Sampler):
    """z ~ N(0, I), x = decode(z, temperature). Each latent tensor is a draw of its own (its step)."""

    needs = Decodes

    def __init__(self, temperature: float = 1.0) -> None:
        self.temperature = temperature

    def evaluations(self) -> int:
        return 1

    def __call__(
        self,
        model: Decodes,
        randomness: Randomness,
        labels: Tensor | None = None,
        fitted: Fitted | None = None,
    ) -> Samples:
        counted = Counted(model, randomness.batch)
        latents = [
            randomness.normal(shape, step, Stream.DECODE) for step, shape in enumerate(model.latent_shapes)
        ]
        images = counted.decode(latents, labels, self.temperature)
        return Samples(images, counted.nfe)
