"""Weighted losses: the same error of the same estimate, whatever a network is asked for."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from genbench.contracts import Batch, Step
from genbench.corruptions.continuous import EDM as EDMLevels
from genbench.corruptions.continuous import VE, VP, Flow, SubVP
from genbench.corruptions.gaussian import Gaussian
from genbench.corruptions.gaussian_rules import squared_diffusion
from genbench.generators.denoising import Denoising
from genbench.generators.estimators import Regression
from genbench.generators.parameterisations import EDM, X0, Epsilon, Score, V, Velocity
from genbench.generators.weightings import Likelihood, Noise

KINDS = [Epsilon(), X0(), V(), Score(), Velocity(), EDM(0.5)]
SCHEDULES = [VP(), SubVP(), VE(0.02, 100.0), EDMLevels(), Flow()]
TIMES = torch.linspace(0.05, 0.95, 40, dtype=torch.float64)


def column(values):
    return values.reshape(-1, 1, 1, 1)


class Poor(nn.Module):
    """What `kind` has to output at TIMES for the estimate x0_hat = tanh(x_t / (alpha + sigma))."""

    def __init__(self, kind, corruption) -> None:
        super().__init__()
        self.kind = kind
        self.alpha, self.sigma = corruption.alpha(TIMES), corruption.sigma(TIMES)

    def forward(self, x, time, labels=None):
        scale = self.kind.scale(self.alpha, self.sigma)
        x_t = x.double() if scale is None else x.double() / column(scale)
        x0_hat = torch.tanh(x_t / column(self.alpha + self.sigma))
        eps_hat = (x_t - column(self.alpha) * x0_hat) / column(self.sigma)
        return self.kind.target(x0_hat, eps_hat, self.alpha, self.sigma)


@pytest.mark.parametrize("weighting", [Noise(), Likelihood()], ids=lambda w: type(w).__name__)
@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda s: type(s).__name__)
def test_a_loss_is_the_estimates_own_in_every_parameterisation(schedule, weighting, monkeypatch):
    """The mean of w |score - score_hat|^2 / D with w = sigma^2 or g^2, as |eps - eps_hat| =
    (alpha / sigma) |x0 - x0_hat| = sigma |score - score_hat|, to the float32 that outputs are kept in."""
    monkeypatch.setattr(schedule, "draw_times", lambda count, device: TIMES)
    corruption = Gaussian(schedule)
    torch.manual_seed(0)
    batch = Batch(2 * torch.rand(40, 1, 4, 4, dtype=torch.float64) - 1, None, torch.arange(40))
    for kind in KINDS:
        model = Denoising(Poor(kind, corruption), corruption, Regression(kind, weighting), (1, 4, 4))
        torch.manual_seed(1)
        trial = model.trial(batch)
        level = corruption.level(trial.t)
        torch.manual_seed(1)
        found = float(model.loss(batch, Step(0, 1)).total)
        alpha, sigma = column(level.alpha), column(level.sigma)
        x0_hat = torch.tanh(trial.x_t / (alpha + sigma))
        error = (alpha * (trial.x0 - x0_hat) / sigma**2).square().flatten(1).mean(1)
        weights = squared_diffusion(level) if isinstance(weighting, Likelihood) else sigma.flatten() ** 2
        assert found == pytest.approx(float((weights * error).mean()), rel=1e-4), kind
