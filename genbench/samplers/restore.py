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

import torch
from torch import Tensor

from genbench.contracts import Posterior, Rule, UserError
from genbench.corruptions.gaussian import Gaussian
from genbench.samplers.correctors import Langevin
from genbench.samplers.grids import Grid
from genbench.samplers.iterative import Iterative, Path, require_gaussian


class Restore(Iterative):
    """Ancestral, DDIM, the reverse SDE and their relatives, one estimate a step and one a correction.

    corrector: Langevin steps taken at every time but the last before the rule moves on, or None.
    """

    def __init__(
        self,
        steps: int,
        grid: Grid,
        rule: Rule,
        clip: bool = True,
        guidance: float = 0.0,
        corrector: Langevin | None = None,
    ) -> None:
        super().__init__(steps, grid, clip, guidance)
        self.rule = rule
        self.corrector = corrector

    def check(self, model: Any) -> None:
        super().check(model)
        corruption = model.corruption
        if self.rule.keeps_noise and not corruption.invertible_in_noise:
            raise UserError(
                f"The rule {self.rule} keeps the noise in x_t, which the corruption "
                f"{type(corruption).__name__} cannot recover. Choose the fresh rule."
            )
        if self.corrector is not None:
            require_gaussian(self, model)
        if isinstance(corruption, Gaussian):
            self._check_start(corruption)

    def _check_start(self, corruption: Gaussian) -> None:
        t, s = self.times(corruption)[:2]
        unknown = torch.zeros(1, 1, 1, 1)
        x0 = Posterior(unknown, variance=unknown, share=unknown)
        step = self.rule.coefficients(corruption.level(s), corruption.level(t), x0)
        if not all(bool(each.isfinite().all()) for each in step):
            raise UserError(
                f"The first step of {self.rule} is not finite: this corruption leaves nothing of the data at "
                "its first time. Type grid.start=0.999."
            )

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
            x = path.corruption.reverse(x, x0, s, t, self.rule).sample(path.randomness, step)
        return x
