"""The two-move sampler: estimate x0, then correct to an earlier time (kexue.fm 9262, unified diffusion).

    x0_hat = estimate(x_t, t),     x_s ~ p(x_s | x_t, x0_hat)  under a rule

With a Gaussian corruption the rules `LargeVariance` and `Eta(1)` make this DDPM's ancestral sampler, `Eta(0)`
DDIM, `EulerMaruyama` and `ReverseDiffusion` the samplers of score SDEs, and with a corrector between the
moves it is the predictor-corrector of Song et al. (2021). When x0_hat has been clipped, the noise is
re-derived from the clipped estimate.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from torch import Tensor

from genbench.contracts import Posterior, Rule
from genbench.corruptions.tokens import drawn
from genbench.samplers.correctors import Langevin
from genbench.samplers.grids import Grid
from genbench.samplers.iterative import Iterative, Path, require_gaussian


class Restore(Iterative):
    """Ancestral, DDIM, the reverse SDE and their relatives, one estimate a step and one a correction.

    corrector: Langevin steps taken at every time but the last before the rule moves on, or None; draw:
    whether the rule is given a draw of x0 from its posterior, by which any number of steps is exact, rather
    than its mean.
    """

    def __init__(
        self,
        steps: int,
        grid: Grid,
        rule: Rule,
        clip: bool = True,
        guidance: float = 0.0,
        corrector: Langevin | None = None,
        draw: bool = False,
    ) -> None:
        super().__init__(steps, grid, clip, guidance)
        self.rule = rule
        self.corrector = corrector
        self.draw = draw

    def check(self, model: Any) -> None:
        super().check(model)
        first, second = self.times(model.corruption)[:2]
        self.rule.check(model.corruption, second, first)
        if self.corrector is not None:
            require_gaussian(self, model)

    def estimates(self) -> int:
        return self.steps * (1 if self.corrector is None else 1 + self.corrector.steps)

    def posterior(self, x: Tensor, t: Tensor, step: int, path: Path) -> Posterior:
        """What the rule is given in its `step`-th step."""
        return path.estimate(x, t)

    def walk(self, x: Tensor, times: Tensor, path: Path) -> Tensor:
        for step, (t, s) in enumerate(pairwise(times)):
            if self.corrector is not None:
                x = self.corrector(x, t, s, step, path)
            x0 = self.posterior(x, t, step, path)
            if self.draw:
                x0 = drawn(x0, path.randomness, step)
            x = self.rule.law(path.corruption, x, x0, s, t).sample(path.randomness, step)
        return x
