"""Analytic-DPM: ancestral sampling whose noise covers what the estimate does not know (Bao et al. 2022).

    Var[x_s | x_t] = added^2 + c^2 v_t,      v_t = E |x0 - x0_hat(x_t)|^2 / D

(kexue.fm 9245, 9246). v_t is measured once at each time of the grid, on training images. For an exact
denoiser it equals the papers' (sigma_t^2 / alpha_t^2) (1 - E |eps_hat|^2 / D), and their two bounds hold by
themselves: an error is not negative, and that of the best estimate exceeds neither sigma^2 / alpha^2 nor the
variance of the data; an estimate worse than these has its v_t cut there.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from genbench.contracts import Batch, Fitted, Posterior, UserError
from genbench.corruptions.gaussian_rules import Splitting, Spread
from genbench.ops.random import Randomness
from genbench.samplers.grids import Grid
from genbench.samplers.guidance import Clip
from genbench.samplers.iterative import Path, require_gaussian
from genbench.samplers.measuring import estimates
from genbench.samplers.restore import Restore

VARIANCES = "posterior_variance"


class Analytic(Restore):
    """rule: what the noise is added to (Eta(1) in the paper); images: how many v_t is measured on.

    noisy_end: also add the last step's noise, which is exact for Gaussian data and dirt on images.
    """

    def __init__(
        self,
        steps: int,
        grid: Grid,
        rule: Splitting,
        clip: Clip = True,
        guidance: float = 0.0,
        images: int = 1000,
        noisy_end: bool = False,
    ) -> None:
        super().__init__(steps, grid, Spread(rule, noisy_end), clip, guidance)
        self.images = images

    def check(self, model: Any) -> None:
        require_gaussian(model)
        super().check(model)

    @torch.inference_mode()
    def fit(self, model: Any, batches: Iterable[Batch], randomness: Randomness) -> Fitted:
        """`posterior_variance`, float64 [steps]: v_t at each time of the grid."""
        corruption = model.corruption
        times = self.grid(self.steps, corruption)[:-1]
        errors = torch.zeros(self.steps, dtype=torch.float64)
        first = second = torch.zeros((), dtype=torch.float64)
        seen = 0
        for step, x0, estimate in estimates(model, times, batches, randomness, self.images):
            error = estimate.mean - x0
            errors[step] += error.double().square().flatten(1).mean(dim=1).sum().cpu()
            if step == 0:
                first = first + x0.double().flatten(1).mean(dim=1).sum().cpu()
                second = second + x0.double().square().flatten(1).mean(dim=1).sum().cpu()
                seen += len(x0)
        spread = second / seen - (first / seen) ** 2
        ratio = (corruption.sigma(times) / corruption.alpha(times)) ** 2
        return {VARIANCES: torch.minimum(errors / seen, torch.minimum(ratio, spread))}

    def placeholder(self, model: Any) -> Fitted:
        return {VARIANCES: torch.zeros(self.steps, dtype=torch.float64)}

    def posterior(self, x: Tensor, t: Tensor, step: int, path: Path) -> Posterior:
        if VARIANCES not in path.fitted:
            raise UserError("sampler=analytic needs to be fitted to training images first.")
        return replace(super().posterior(x, t, step, path), variance=path.fitted[VARIANCES][step])
