"""Multistep solvers where their steps are not all alike, and the first-order step they start with."""

from __future__ import annotations

import math

import pytest
import torch
from exact import Between, Exact

from genbench.contracts import Posterior
from genbench.corruptions.continuous import EDM, VE, VP, Flow, SubVP
from genbench.corruptions.gaussian import Gaussian
from genbench.corruptions.gaussian_rules import Eta
from genbench.corruptions.rules import Mixed
from genbench.corruptions.schedules import Linear
from genbench.generators.oracles import GaussianOracle, MixtureOracle
from genbench.ops.random import Keys
from genbench.samplers.grids import LogSNR, Quadratic, Uniform
from genbench.samplers.multistep import DPMSolver2, DPMSolverPP2M, UniPC
from genbench.samplers.restore import Restore

SCHEDULES = [Linear(), VP(), SubVP(), VE(0.02, 100.0), EDM(), Flow()]
by_name = {"ids": lambda schedule: type(schedule).__name__}


def mixture(corruption) -> MixtureOracle:
    return MixtureOracle(corruption, [[[[-1.0]]], [[[0.5]]]], [0.2, 0.3], [0.3, 0.7], [1, 2, 2])


@pytest.mark.parametrize("grid", [Uniform(0.999), Quadratic(), LogSNR(0.999)], ids=lambda g: type(g).__name__)
@pytest.mark.parametrize("schedule", SCHEDULES, **by_name)
def test_the_solver_of_first_order_is_ddim(schedule, grid):
    """On a mixture, over the whole path, to 1e-12 of where it starts."""
    torch.manual_seed(0)
    model = mixture(Exact(schedule, schedule.terminal_std * torch.randn(5, 1, 2, 2).double()))
    keys = Keys(torch.arange(5), 0)
    ours = UniPC(20, grid, order=1, corrector=False)(model, keys).images
    ddim = Restore(20, grid, Eta(0.0), clip=False)(model, keys).images
    torch.testing.assert_close(ours, ddim, rtol=0, atol=1e-12 * max(1.0, schedule.terminal_std))


@pytest.mark.parametrize("schedule", SCHEDULES, **by_name)
def test_ddims_step_is_that_of_dpm_solver(schedule):
    """(a_s / a_t) x - s_s (e^h - 1) eps and (s_s / s_t) x - a_s (e^-h - 1) x0 with h = lambda_s - lambda_t
    (Lu et al. 2022a, eq. 3.7; 2022b, eq. 9), which are one and the same."""
    corruption = Gaussian(schedule)
    s, t = torch.tensor([0.4, 0.7], dtype=torch.float64)
    (alpha_s, sigma_s), (alpha_t, sigma_t) = ((corruption.alpha(u), corruption.sigma(u)) for u in (s, t))
    h = schedule.half_log_snr(s) - schedule.half_log_snr(t)
    torch.manual_seed(0)
    x, x0 = torch.randn(2, 3, 1, 2, 2, dtype=torch.float64)
    eps = (x - alpha_t * x0) / sigma_t
    found = Mixed(0.0).law(corruption, x, Posterior(x0), s, t).mean
    for step in (
        alpha_s / alpha_t * x - sigma_s * torch.expm1(h) * eps,
        sigma_s / sigma_t * x - alpha_s * torch.expm1(-h) * x0,
    ):
        torch.testing.assert_close(found, step, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("schedule", [VP(), EDM(), Flow()], **by_name)
def test_dpm_solver_2_uses_the_noise_halfway(schedule):
    """One step by hand: u by the first-order step to the middle in lambda, then the noise there."""
    start = torch.tensor(0.8, dtype=torch.float64)
    model = mixture(Exact(schedule, start))
    t, s = Between(0.6, 0.3)(1, model.corruption)
    middle = schedule.time_at((schedule.half_log_snr(t) + schedule.half_log_snr(s)) / 2)
    (a_t, s_t), (a_m, s_m), (a_s, s_s) = ((schedule.alpha(u), schedule.sigma(u)) for u in (t, middle, s))
    h = (a_s / s_s).log() - (a_t / s_t).log()
    x = start.expand(1, 1, 2, 2)
    eps = (x - a_t * model.denoise(x, t).mean) / s_t
    u = a_m / a_t * x - s_m * torch.expm1(h / 2) * eps
    eps = (u - a_m * model.denoise(u, middle).mean) / s_m
    found = DPMSolver2(1, Between(0.6, 0.3))(model, Keys(torch.arange(1), 0)).images
    torch.testing.assert_close(found, a_s / a_t * x - s_s * torch.expm1(h) * eps, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("schedule", [VP(), EDM(), Flow()], **by_name)
def test_dpm_solver_pp_2m_draws_a_line_through_two_estimates(schedule):
    """Two steps, the second twice as long: r = h_last / h = 1/2 and D = (1 + 1 / 2r) x0 - (1 / 2r) x0_last
    (Lu et al. 2022b, algorithm 2). An exchange of the lengths would not show in the order."""
    start = torch.tensor(0.8, dtype=torch.float64)
    model, grid = mixture(Exact(schedule, start)), Between(0.6, 0.3, longer=2.0)
    t, u, s = grid(2, model.corruption)
    lambdas = [(schedule.alpha(v) / schedule.sigma(v)).log() for v in (t, u, s)]
    h_last, h = lambdas[1] - lambdas[0], lambdas[2] - lambdas[1]
    assert float(h_last / h) == pytest.approx(0.5)
    x = start.expand(1, 1, 2, 2)
    last = model.denoise(x, t).mean
    x = schedule.sigma(u) / schedule.sigma(t) * x - schedule.alpha(u) * torch.expm1(-h_last) * last
    line = 2 * model.denoise(x, u).mean - last
    x = schedule.sigma(s) / schedule.sigma(u) * x - schedule.alpha(s) * torch.expm1(-h) * line
    found = DPMSolverPP2M(2, grid)(model, Keys(torch.arange(1), 0)).images
    torch.testing.assert_close(found, x, rtol=1e-10, atol=1e-10)


SOLVERS = {
    "dpmpp_2m": (2, DPMSolverPP2M),
    "unip2": (2, lambda steps, grid: UniPC(steps, grid, order=2, corrector=False)),
    "unip3": (3, lambda steps, grid: UniPC(steps, grid, order=3, corrector=False)),
    "unipc1": (2, lambda steps, grid: UniPC(steps, grid, order=1)),
    "unipc2": (3, lambda steps, grid: UniPC(steps, grid, order=2)),
    "unipc3": (4, lambda steps, grid: UniPC(steps, grid, order=3)),
    "unipc2-bh1": (3, lambda steps, grid: UniPC(steps, grid, order=2, bh="h")),
}


@pytest.mark.parametrize(("schedule", "last"), [(VP(), 0.2), (VE(0.02, 100.0), 0.35)], ids=["VP", "VE"])
@pytest.mark.parametrize("name", SOLVERS)
def test_the_order_survives_steps_of_alternating_length(name, schedule, last):
    """Every other step in lambda is twice as long: a solver that forgot their ratio would be of order one."""
    expected, make = SOLVERS[name]
    model = GaussianOracle(Exact(schedule), (1, 1, 1), std=0.5)
    ends = torch.tensor([1.0, last], dtype=torch.float64)
    power = schedule.alpha(ends) ** 2 * 0.25 + schedule.sigma(ends) ** 2
    exact = math.sqrt(float(power[1] / power[0]))
    errors = []
    for steps in (256, 512):
        image = make(steps, Between(1.0, last, longer=2.0))(model, Keys(torch.arange(1), 0)).images
        errors.append(abs(float(image) - exact))
    assert errors[1] > 1e-11  # clear of rounding
    assert math.log2(errors[0] / errors[1]) == pytest.approx(expected, abs=0.15), errors
