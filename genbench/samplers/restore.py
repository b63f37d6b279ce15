"""The two-move sampler: estimate x0, then correct to an earlier time (kexue.fm 9262, unified diffusion).

    x0_hat = estimate(x_t, t),     x_s ~ p(x_s | x_t, x0_hat)  under a rule

With a Gaussian corruption the rules `LargeVariance` and `Eta(1)` make this DDPM's ancestral sampler, `Eta(0)`
DDIM. When x0_hat has been clipped, the noise is re-derived from the clipped estimate.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from torch import Tensor

from genbench.contracts import Denoises, Fitted, Rule, Sampler, Samples, UserError
from genbench.ops.random import Randomness
from genbench.samplers.counting import Counted
from genbench.samplers.grids import Grid
from genbench.samplers.guidance import Estimate


class Restore(Sampler):
    """Ancestral, DDIM and their relatives: a grid, a correction rule, and how the estimate is taken.

    steps: number of corrections, which is the NFE without guidance; clip, guidance: see `Estimate`.
    """

    needs = Denoises

    def __init__(self, steps: int, grid: Grid, rule: Rule, clip: bool = True, guidance: float = 0.0) -> None:
        self.steps = steps
        self.grid = grid
        self.rule = rule
        self.estimate = Estimate(clip, guidance)

    def check(self, model: Any) -> None:
        corruption = model.corruption
        if self.rule.keeps_noise and not corruption.invertible_in_noise:
            raise UserError(
                f"The rule {self.rule} keeps the noise in x_t, which the corruption "
                f"{type(corruption).__name__} cannot recover. Choose the fresh rule."
            )
        self.grid(self.steps, corruption.steps)
        self.estimate.check(model)

    def evaluations(self) -> int:
        return self.steps * (2 if self.estimate.guidance else 1)

    def __call__(
        self,
        model: Denoises,
        randomness: Randomness,
        labels: Tensor | None = None,
        fitted: Fitted | None = None,
    ) -> Samples:
        counted = Counted(model, randomness.batch)
        corruption = model.corruption
        x = corruption.terminal((randomness.batch, *model.image_shape), randomness, fitted or {})
        times = self.grid(self.steps, corruption.steps)
        for step, (t, s) in enumerate(pairwise(times)):
            x0 = self.estimate(counted, x, t, labels)
            x = corruption.reverse(x, x0, s, t, self.rule).sample(randomness, step)
        return Samples(x, counted.nfe)
