"""The two-move sampler: estimate x0, then correct to an earlier time (kexue.fm 9262, unified diffusion).

    x0_hat = estimate(x_t, t),     x_s ~ p(x_s | x_t, x0_hat)  under a rule

With a Gaussian corruption the rules `LargeVariance` and `Eta(1)` make this DDPM's ancestral sampler, `Eta(0)`
DDIM, `EulerMaruyama` and `ReverseDiffusion` the samplers of score SDEs, and with a corrector between the
moves it is the predictor-corrector of Song et al. (2021). When x0_hat has been clipped, the noise is
re-derived from the clipped estimate.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise
from typing import Any

from torch import Tensor

from genbench.contracts import Batch, Fitted, Posterior, Rule, UserError
from genbench.corruptions.gaussian import Linear
from genbench.ops.random import Randomness
from genbench.samplers.correctors import Langevin
from genbench.samplers.draws import Draw, Mean
from genbench.samplers.grids import Grid
from genbench.samplers.guidance import Clip
from genbench.samplers.iterative import Iterative, Path, require_gaussian
from genbench.samplers.measuring import example


class Restore(Iterative):
    """Ancestral, DDIM, the reverse SDE and their relatives, one estimate a step and one a correction.

    corrector: Langevin steps taken at every time but the last before the rule moves on, or None; draw:
    what the rule is given of the estimate, its mean unless said.
    """

    def __init__(
        self,
        steps: int,
        grid: Grid,
        rule: Rule,
        clip: Clip = True,
        guidance: float = 0.0,
        corrector: Langevin | None = None,
        draw: Draw | None = None,
    ) -> None:
        super().__init__(steps, grid, clip, guidance)
        self.rule = rule
        self.corrector = corrector
        self.draw = draw or Mean()

    def check(self, model: Any) -> None:
        super().check(model)
        first, second = self.times(model.corruption)[:2]
        self.rule.check(model.corruption, second, first)
        if first < 1 and not isinstance(model.corruption, Linear):
            raise UserError(
                "This model's corruption has a law to start from at t = 1, and this grid starts at "
                f"{float(first):g}. Type grid=uniform."
            )
        self.rule.check_estimate(self.draw.given(example(model)))
        if self.corrector is not None:
            require_gaussian(model)

    def fit(self, model: Any, batches: Iterable[Batch], randomness: Randomness) -> Fitted:
        times = self.times(model.corruption)[:-1]
        drawing = self.draw.fit(model, times, batches, randomness)
        return {**super().fit(model, batches, randomness), **drawing}

    def placeholder(self, model: Any) -> Fitted:
        return {**super().placeholder(model), **self.draw.placeholder(model, self.steps)}

    def estimates(self) -> int:
        return self.steps * (1 if self.corrector is None else 1 + self.corrector.steps)

    def posterior(self, x: Tensor, t: Tensor, step: int, path: Path) -> Posterior:
        """What the rule is given in its `step`-th step."""
        return path.estimate(x, t)

    def walk(self, x: Tensor, times: Tensor, path: Path) -> Tensor:
        for step, (t, s) in enumerate(pairwise(times)):
            if self.corrector is not None:
                x = self.corrector(x, t, s, step, path)
            x0 = self.draw(self.posterior(x, t, step, path), path.randomness, step, path.fitted)
            x = self.rule.law(path.corruption, x, x0, s, t).sample(path.randomness, step)
        return x
