"""One-step sampling: draw latents from N(0, I) and decode them."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from torch import Tensor

from genbench.contracts import Batch, Decodes, Fitted, Generator, Renormalises, Sampler, Samples, UserError
from genbench.ops.random import Randomness, Stream
from genbench.samplers.counting import Counted
from genbench.samplers.statistics import measure, using


class Decode(Sampler):
    """z ~ N(0, I), x = decode(z, temperature). Each latent tensor is a draw of its own (its step).

    statistics: from how many latents the batch normalisation of a model that asks for it (`Renormalises`) is
    measured again after training; 0 keeps training's running averages.
    """

    needs = Decodes

    def __init__(self, temperature: float = 1.0, statistics: int = 10_000) -> None:
        if temperature <= 0 or statistics < 0:
            raise UserError(
                f"sampler.temperature={temperature} and sampler.statistics={statistics}: expected a number "
                "above 0 and a whole number from 0 up."
            )
        self.temperature = temperature
        self.statistics = statistics

    def evaluations(self) -> int:
        return 1

    def fit(self, model: Generator, batches: Iterable[Batch], randomness: Randomness) -> Fitted:
        """The statistics of the model's batch normalisation under the latents it will be sampled with."""
        if not isinstance(model, Renormalises):
            return {}

        def evaluate(batch: int) -> None:
            classes = getattr(model, "classes", 0)
            labels = (randomness.uniform(()) * classes).long() if classes else None
            self._decode(model, randomness, labels)

        return measure(model.renormalised(), -(-self.statistics // randomness.batch), evaluate)

    def __call__(
        self,
        model: Decodes,
        randomness: Randomness,
        labels: Tensor | None = None,
        fitted: Fitted | None = None,
    ) -> Samples:
        counted = Counted(model, randomness.batch)
        in_place: AbstractContextManager[None] = nullcontext()
        if fitted and isinstance(model, Renormalises):
            in_place = using(model.renormalised(), fitted)
        with in_place:
            images = self._decode(counted, randomness, labels)
        return Samples(images, counted.nfe)

    def _decode(self, model: Any, randomness: Randomness, labels: Tensor | None) -> Tensor:
        latents = [
            randomness.normal(shape, step, Stream.DECODE) for step, shape in enumerate(model.latent_shapes)
        ]
        return model.decode(latents, labels, self.temperature)
