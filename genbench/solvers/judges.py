"""What a sampler is judged by: an oracle's own law, or the score of a trained model's images."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch

from genbench.contracts import Batch, Generator, Sampler, Samples, UserError
from genbench.generators.oracles import Oracle
from genbench.harness.assembly import Assembly
from genbench.harness.conclusion import source_of
from genbench.harness.scoring import Scoring
from genbench.metrics.card import SHIPPED, Card
from genbench.ops.random import Keys, Successive
from genbench.solvers.wasserstein import sliced_wasserstein

EXACT_SEED, *FLOOR_SEEDS = range(2**32 - 12, 2**32 - 1)
"""Seeds of exact draws, which no evaluation seed shares."""

EXACT_SHARE = 10
"""How many exact draws there are for each image of a sampler."""


@dataclass(frozen=True)
class Verdict:
    """measure: what `value` is, lower being better; nfe_mean, nfe_max: network evaluations an image."""

    measure: str
    value: float
    nfe_mean: float
    nfe_max: int
    seconds_per_image: float


class Judge(ABC):
    """samples: how many images are judged; floor: what perfect ones would get, where it is known."""

    samples: int
    floor: float | None

    @abstractmethod
    def __call__(self, sampler: Sampler, assembly: Assembly) -> Verdict:
        """Draws `samples` images and judges them; `assembly` holds the sampler's configuration."""


class OracleJudge(Judge):
    """Distance between a sampler's images and exact draws from the law the oracle knows.

    The floor is what as many exact draws get, mean over ten sets: near it nothing can be told apart.
    """

    def __init__(self, model: Generator, samples: int, device: torch.device) -> None:
        if not isinstance(model, Oracle):
            raise UserError(
                f"{type(model).__name__} knows no law to compare with. Give a trained run as run_dir=PATH, "
                "or leave model unset for an oracle."
            )
        self.model, self.samples, self.device = model, samples, device
        self.exact = model.sample(Keys(torch.arange(EXACT_SHARE * samples, device=device), EXACT_SEED))
        index = torch.arange(samples, device=device)
        again = [sliced_wasserstein(model.sample(Keys(index, seed)), self.exact) for seed in FLOOR_SEEDS]
        self.floor = sum(again) / len(again)

    @torch.inference_mode()
    def __call__(self, sampler: Sampler, assembly: Assembly) -> Verdict:
        seed = assembly.config["metrics"]["seeds"][0]
        data = self.exact[: self.samples]
        batch = Batch(data, None, torch.arange(len(data), device=self.device))
        fitted = sampler.fit(self.model, [batch], Successive(len(data), seed, self.device))
        began = time.perf_counter()
        drawn: Samples = sampler(
            self.model, Keys(torch.arange(self.samples, device=self.device), seed), None, fitted
        )
        seconds = time.perf_counter() - began
        return Verdict(
            measure="W1",
            value=sliced_wasserstein(drawn.images, self.exact),
            nfe_mean=float(drawn.nfe.double().mean()),
            nfe_max=int(drawn.nfe.max()),
            seconds_per_image=seconds / self.samples,
        )


class ScoreJudge(Judge):
    """The main metric of a trained model's images, as its record would state it.

    The floor is what unseen real images get, where the shipped extractor's card says so.
    """

    def __init__(self, model: Generator, scoring: Scoring, samples: int) -> None:
        extractor = scoring.extractors[0].name
        self.model, self.scoring, self.samples = model, scoring, samples
        self.floor = Card.read(extractor).floor if (SHIPPED / f"{extractor}.json").is_file() else None

    def __call__(self, sampler: Sampler, assembly: Assembly) -> Verdict:
        seeds = assembly.config["metrics"]["seeds"]
        scored = self.scoring.score(source_of(assembly, self.model, sampler), self.samples, seeds)
        main = scored.main
        return Verdict(main.name, main.value, scored.nfe_mean, scored.nfe_max, scored.seconds_per_image)
