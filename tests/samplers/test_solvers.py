"""Every solver's order of convergence, on data N(0, c^2) where the ODE's map is known, in float64."""

from __future__ import annotations

import math

import pytest
import torch
from exact import Between, Exact
from torch import Tensor

from genbench.contracts import Posterior, UserError
from genbench.corruptions.continuous import EDM, VE, VP, Flow, SubVP
from genbench.corruptions.gaussian import Gaussian
from genbench.corruptions.gaussian_rules import Eta, EulerMaruyama
from genbench.corruptions.schedules import Linear
from genbench.generators.oracles import GaussianOracle, MixtureOracle
from genbench.ops.random import Keys
from genbench.samplers.grids import Grid, LogSNR, Quadratic, Rho, Uniform
from genbench.samplers.iterative import Iterative
from genbench.samplers.multistep import DPMSolver2, DPMSolverPP2M, UniPC
from genbench.samplers.ode import Heun, RungeKutta45
from genbench.samplers.restore import Restore

C = 0.5


def factor(schedule, times: Tensor) -> float:
    """x_last / x_first of the probability-flow ODE, in closed form."""
    power = schedule.alpha(times) ** 2 * C**2 + schedule.sigma(times) ** 2
    return math.sqrt(float(power[-1] / power[0]))


def errors(make, schedule, grid: Grid, counts: list[int]) -> list[float]:
    model = GaussianOracle(Exact(schedule), (1, 1, 1), std=C)
    found = []
    for steps in counts:
        sampler: Iterative = make(steps, grid)
        image = sampler(model, Keys(torch.arange(1), 0)).images
        found.append(abs(float(image) - factor(schedule, grid(steps, model.corruption))))
    return found


def order(values: list[float]) -> float:
    """From the finest halving of the step whose error stands clear of rounding."""
    clear = [value for value in values if value > 1e-11]
    assert len(clear) >= 5
    return math.log2(clear[-2] / clear[-1])


SCHEDULES = {"vp": VP(), "subvp": SubVP(), "ve": VE(0.02, 100.0), "edm": EDM(), "flow": Flow()}
# From almost pure noise, where a multistep method's first steps of lower order err by nothing that counts, to
# a noise level of the size of the data.
INTERVALS = {
    "vp": (1.0, 0.15),
    "subvp": (1.0, 0.4),
    "ve": (1.0, 0.35),
    "edm": (1.0, 0.005),
    "flow": (0.999, 0.3),
}

SOLVERS = {
    "euler": (1, lambda steps, grid: Restore(steps, grid, EulerMaruyama(0.0), clip=False)),
    "ddim": (1, lambda steps, grid: Restore(steps, grid, Eta(0.0), clip=False)),
    "heun": (2, Heun),
    "dpm_solver": (2, DPMSolver2),
    "dpmpp_2m": (2, DPMSolverPP2M),
    "unip1": (1, lambda steps, grid: UniPC(steps, grid, order=1, corrector=False)),
    "unip2": (2, lambda steps, grid: UniPC(steps, grid, order=2, corrector=False)),
    "unip3": (3, lambda steps, grid: UniPC(steps, grid, order=3, corrector=False)),
    "unipc1": (2, lambda steps, grid: UniPC(steps, grid, order=1)),
    "unipc2": (3, lambda steps, grid: UniPC(steps, grid, order=2)),
    "unipc3": (4, lambda steps, grid: UniPC(steps, grid, order=3)),
    "unipc2-bh1": (3, lambda steps, grid: UniPC(steps, grid, order=2, bh="h")),
}


@pytest.mark.parametrize("path", SCHEDULES)
@pytest.mark.parametrize("name", SOLVERS)
def test_order_of_convergence(name, path):
    expected, make = SOLVERS[name]
    counts = [16 * 2**k for k in range(7 if expected > 2 else 6)]
    found = errors(make, SCHEDULES[path], Between(*INTERVALS[path]), counts)
    assert order(found) == pytest.approx(expected, abs=0.15), found


def relative_errors(make, counts: list[int]) -> list[float]:
    """Of the whole map from sigma = 80 to the data, on EDM's grid."""
    model = GaussianOracle(Exact(EDM()), (1, 1, 1), std=C)
    exact = C / math.sqrt(C**2 + 80**2)
    found = []
    for steps in counts:
        image = make(steps, Rho(80.0, 0.002))(model, Keys(torch.arange(1), 0)).images
        found.append(abs(float(image) / exact - 1))
    return found


def test_edms_sampler_errs_as_much_as_it_should():
    """Measured independently for data of standard deviation .5: Heun's method and Euler's."""
    counts = [18, 36, 72, 144]
    heun, euler = relative_errors(Heun, counts), relative_errors(SOLVERS["euler"][1], counts)
    assert heun == pytest.approx([5.5e-2, 1.22e-2, 2.87e-3, 6.9e-4], rel=0.02)
    assert euler == pytest.approx([0.154, 0.078, 0.039, 0.0197], rel=0.01)


def test_euler_in_sigma_is_ddim():
    assert relative_errors(SOLVERS["euler"][1], [20]) == pytest.approx(
        relative_errors(SOLVERS["ddim"][1], [20]), rel=1e-10
    )


@pytest.mark.parametrize("path", SCHEDULES)
def test_the_adaptive_solver_reaches_its_tolerance(path):
    schedule, (first, last) = SCHEDULES[path], INTERVALS[path]
    model = GaussianOracle(Exact(schedule), (1, 1, 1), std=C)
    times = torch.tensor([first, last], dtype=torch.float64)
    for tolerance in (1e-4, 1e-7, 1e-10):
        sampler = RungeKutta45(tolerance, tolerance * 1e-3, first, last, denoise=False)
        image = sampler(model, Keys(torch.arange(1), 0)).images
        assert float(image) == pytest.approx(factor(schedule, times), rel=30 * tolerance)


def test_the_adaptive_solver_starts_where_a_discrete_schedule_ends():
    """Grids of discrete times end below 1 when steps are few; this solver has no grid."""
    schedule = Linear(1000)
    model = GaussianOracle(Exact(schedule), (1, 1, 1), std=C)
    image = RungeKutta45(1e-6, 1e-8, end=0.05, denoise=False)(model, Keys(torch.arange(1), 0)).images
    expected = factor(schedule, torch.tensor([1.0, 0.05], dtype=torch.float64))
    assert float(image) == pytest.approx(expected, rel=1e-4)


def test_an_adaptive_image_does_not_depend_on_its_batch():
    torch.manual_seed(0)
    model = MixtureOracle(
        Gaussian(VP()),
        torch.tensor([-1.0, 0.1, 1.0]).reshape(3, 1, 1, 1).expand(3, 1, 2, 2),
        *torch.full((2, 3), 0.1),
    )
    sampler = RungeKutta45(1e-4, 1e-4)
    together = sampler(model, Keys(torch.arange(12), 3))
    alone = [sampler(model, Keys(torch.tensor([index]), 3)) for index in range(12)]
    torch.testing.assert_close(together.images, torch.cat([each.images for each in alone]), atol=1e-5, rtol=0)
    assert together.nfe.tolist() == [int(each.nfe) for each in alone]
    assert len(set(together.nfe.tolist())) > 1  # images do take different numbers of steps


@pytest.mark.parametrize(
    ("name", "steps", "nfe"),
    [
        ("heun", 18, 35),
        ("dpm_solver", 10, 19),
        ("dpmpp_2m", 10, 10),
        ("unipc3", 10, 10),
        ("unip2", 7, 7),
        ("ddim", 9, 9),
    ],
)
def test_evaluations_are_counted_and_as_many_as_said(name, steps, nfe):
    model = GaussianOracle(Gaussian(VP()), (1, 2, 2), std=C)
    sampler = SOLVERS[name][1](steps, LogSNR())
    assert sampler(model, Keys(torch.arange(3), 0)).nfe.tolist() == [nfe] * 3
    assert sampler.evaluations() in (
        nfe,
        nfe + 1,
    )  # an estimate of time may count DPM-Solver's last step double


class Constant(GaussianOracle):
    """Says the same of every x_t: x0_hat, or eps_hat, is constant."""

    def __init__(self, corruption, noise: float | None) -> None:
        super().__init__(corruption, (1, 1, 1))
        self.noise = noise

    def denoise(self, x_t, t, labels=None):
        if self.noise is None:
            return Posterior(torch.full_like(x_t, 0.3))
        alpha, sigma = self.corruption.alpha(t), self.corruption.sigma(t)
        return Posterior((x_t - sigma * self.noise) / alpha)


@pytest.mark.parametrize("name", ["ddim", "dpm_solver", "dpmpp_2m", "unip3", "unipc3"])
@pytest.mark.parametrize("noise", [None, 0.7])
def test_solvers_are_exact_where_what_they_integrate_is_constant(name, noise):
    """Three steps of any size end on the line alpha x0 + sigma eps. Data prediction for constant x0_hat,
    noise prediction for constant eps_hat; the first-order step for both."""
    if noise is not None and name in ("dpmpp_2m", "unip3", "unipc3"):
        pytest.skip("these integrate x0_hat")
    if noise is None and name == "dpm_solver":
        pytest.skip("this one integrates eps_hat")
    corruption, times = Exact(VP()), Between(0.9, 0.1)(3, Gaussian(VP()))
    alpha, sigma = corruption.alpha(times), corruption.sigma(times)
    if noise is None:
        expected = 0.3 * alpha[-1] + (1 - 0.3 * alpha[0]) / sigma[0] * sigma[-1]
    else:
        expected = (1 - noise * sigma[0]) / alpha[0] * alpha[-1] + noise * sigma[-1]
    model = Constant(corruption, noise)
    image = SOLVERS[name][1](3, Between(0.9, 0.1))(model, Keys(torch.arange(1), 0)).images
    assert float(image) == pytest.approx(float(expected), abs=1e-12)


def test_steps_to_the_data_end_at_the_estimate():
    model = Constant(Exact(VP()), None)
    for name, (_, make) in SOLVERS.items():
        image = make(6, Uniform())(model, Keys(torch.arange(1), 0)).images
        assert float(image) == pytest.approx(0.3, abs=1e-9 if name != "euler" else 0.05), name


def test_churn_keeps_the_law_of_the_data():
    """Noise added and removed again: the variance of Gaussian data survives, within Monte-Carlo error."""
    model = GaussianOracle(Gaussian(EDM()), (1, 8, 8), std=C)
    plain = Heun(60, Rho(80.0, 0.002))(model, Keys(torch.arange(500), 0)).images.double()
    churned = Heun(60, Rho(80.0, 0.002), churn=30.0)(model, Keys(torch.arange(500), 0)).images.double()
    noise = C**2 * (2 / plain.numel()) ** 0.5
    assert abs(float(churned.var()) - C**2) < 5 * noise + 0.01 * C**2
    assert abs(float(plain.var()) - C**2) < 5 * noise + 0.01 * C**2
    assert float((plain - churned).std()) > 0.3


@pytest.mark.parametrize("make", [Heun, DPMSolver2, DPMSolverPP2M, UniPC])
def test_other_corruptions_are_refused(make):
    class Elsewhere:
        corruption = object()

    with pytest.raises(UserError, match="Gaussian corruption"):
        make(5, Uniform()).check(Elsewhere())


@pytest.mark.parametrize("make", [DPMSolverPP2M, UniPC], ids=lambda make: make.__name__)
def test_a_start_from_pure_noise_is_no_step_to_extrapolate_from(make):
    """Flow leaves nothing of the data at t = 1, where lambda is infinite."""
    model = GaussianOracle(Gaussian(Flow()), (1, 2, 2), mean=0.2, std=C)
    images = make(30, Uniform())(model, Keys(torch.arange(2000), 0)).images
    assert images.mean().item() == pytest.approx(0.2, abs=4 * C / 8000**0.5)
    assert images.std().item() == pytest.approx(C, rel=0.05)


@pytest.mark.parametrize("make", [DPMSolverPP2M, UniPC], ids=lambda make: make.__name__)
def test_a_repeated_time_is_no_step(make):
    """DDIM's quadratic sub-sequence names index 0 several times."""
    model = GaussianOracle(Gaussian(Linear(1000)), (1, 2, 2), std=C)
    found = make(60, Quadratic())(model, Keys(torch.arange(300), 0))
    assert found.images.std().item() == pytest.approx(C, rel=0.1)
    assert int(found.nfe.max()) == len(Quadratic()(60, model.corruption).unique()) - 1


@pytest.mark.parametrize(("start", "end"), [(1.0, 0.0), (0.5, 0.6), (2.0, 0.1)])
def test_impossible_intervals_are_refused(start, end):
    with pytest.raises(UserError, match=f"sampler.start={start} and sampler.end={end}"):
        RungeKutta45(start=start, end=end)
