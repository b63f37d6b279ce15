"""What a sampler is judged by: an oracle's own law, or the score of a trained model's images."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from genbench.contracts import Batch, Generator, Sampler, UserError
from genbench.generators.oracles import Oracle
from genbench.harness.sampling import Source
from genbench.harness.scoring import Scoring
from genbench.metrics.card import standing
from genbench.ops.random import Keys, Successive
from genbench.solvers.wasserstein import SlicedWasserstein

EXACT_SEED, FIT_SEED, *FLOOR_SEEDS = range(2**32 - 13, 2**32 - 1)
"""Seeds of exact draws, which are not evaluation seeds: those are small numbers that people type."""

EXACT_SHARE = 10
"""How many exact draws there are for each image of a sampler."""


@dataclass(frozen=True)
class Verdict:
    """measure: what `value` is, lower being better; nfe_mean, nfe_max: network evaluations an image.

    floor: what the best images there are would get, where it is known; floor_of: which images these are.
    """

    measure: str
    value: float
    nfe_mean: float
    nfe_max: int
    seconds_per_image: float
    floor: float | None
    floor_of: str


class Judge(ABC):
    """samples: how many images are judged."""

    samples: int

    @abstractmethod
    def __call__(self, sampler: Sampler, settings: Mapping[str, Any]) -> Verdict:
        """Draws `samples` images and judges them; settings: the sampler's node of a configuration."""


class OracleJudge(Judge):
    """Distance between a sampler's images and exact draws from the law that an oracle knows.

    The floor is what as many exact draws get, mean over ten sets: near it nothing can be told apart.
    """

    def __init__(self, model: Generator, samples: int, seed: int, device: torch.device) -> None:
        if not isinstance(model, Oracle):
            raise UserError(
                "This model knows no law to compare with. Give a trained run as run_dir=PATH, "
                "or leave model unset for an oracle."
            )
        self.model, self.samples, self.seed, self.device = model, samples, seed, device
        self.distance = SlicedWasserstein(model.sample(self._keys(EXACT_SHARE * samples, EXACT_SEED)))
        floors = [self.distance(model.sample(self._keys(samples, seed))) for seed in FLOOR_SEEDS]
        self.floor = sum(floors) / len(floors)

    def _keys(self, count: int, seed: int) -> Keys:
        return Keys(torch.arange(count, device=self.device), seed)

    @torch.inference_mode()
    def __call__(self, sampler: Sampler, settings: Mapping[str, Any]) -> Verdict:
        data = self.model.sample(self._keys(self.samples, FIT_SEED)).float()
        batch = Batch(data, None, torch.arange(len(data), device=self.device))
        fitted = sampler.fit(self.model, [batch], Successive(len(data), self.seed, self.device))
        began = time.perf_counter()
        drawn = [
            sampler(self.model, Keys(index, self.seed), None, fitted)
            for index in torch.arange(self.samples, device=self.device).split(settings["batch_size"])
        ]
        images = torch.cat([each.images for each in drawn]).cpu()  # on the CPU when all is done
        seconds = time.perf_counter() - began
        nfe = torch.cat([each.nfe for each in drawn])
        return Verdict(
            measure="sliced_w1",
            value=self.distance(images.to(self.device)),
            nfe_mean=float(nfe.double().mean()),
            nfe_max=int(nfe.max()),
            seconds_per_image=seconds / self.samples,
            floor=self.floor,
            floor_of="as many exact draws",
        )


class ScoreJudge(Judge):
    """The main metric of a trained model's images, as its record would state it.

    source: (sampler, settings) -> where its images come from. The floor is what unseen real images get,
    where the card of a shipped extractor says so.
    """

    def __init__(
        self,
        source: Callable[[Sampler, Mapping[str, Any]], Source],
        scoring: Scoring,
        samples: int,
        seed: int,
    ) -> None:
        self.source, self.scoring, self.samples, self.seed = source, scoring, samples, seed

    def __call__(self, sampler: Sampler, settings: Mapping[str, Any]) -> Verdict:
        scored = self.scoring.brief().score(self.source(sampler, settings), self.samples, [self.seed])
        card = standing(scored.main.name, scored.main.extractor)
        return Verdict(
            scored.main.name,
            scored.main.value,
            scored.nfe_mean,
            scored.nfe_max,
            scored.seconds_per_image,
            None if card is None else card.floor,
            "unseen real images",
        )
