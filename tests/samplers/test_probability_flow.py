"""The probability-flow ODE: one equation in all units, known paths, straight ones, and the way back."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from exact import Exact
from torch import Tensor

from genbench.contracts import Posterior
from genbench.corruptions.continuous import EDM, VE, VP, Flow, SubVP
from genbench.corruptions.gaussian import Gaussian
from genbench.corruptions.gaussian_rules import Eta, EulerMaruyama
from genbench.corruptions.rules import Mixed
from genbench.corruptions.schedules import Cosine, Linear
from genbench.generators.oracles import DataOracle, GaussianOracle, MixtureOracle
from genbench.ops.random import Keys
from genbench.samplers.grids import Rho, Uniform
from genbench.samplers.ode import Heun, RungeKutta45, velocity
from genbench.samplers.restore import Restore

SCHEDULES = [Linear(), Cosine(), VP(), SubVP(), VE(0.02, 100.0), EDM(), Flow()]
every_schedule = pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda schedule: type(schedule).__name__)


def at(*times: float) -> Tensor:
    return torch.tensor(times, dtype=torch.float64)


def mixture(corruption) -> MixtureOracle:
    return MixtureOracle(corruption, [[[[-1.0]]], [[[0.5]]]], [0.2, 0.3], [0.3, 0.7], [1, 1, 2])


@every_schedule
def test_every_corruption_has_the_same_equation_in_its_own_units(schedule):
    """With y = x / alpha and s = sigma / alpha, dy/ds = (y - D(y; s)) / s, D being EDM's denoiser: a model of
    one corruption is a model of all (Karras et al. 2022, eq. 1 and 3)."""
    torch.manual_seed(0)
    corruption, t = Gaussian(schedule), at(0.1, 0.3, 0.5, 0.7, 0.9)
    level = corruption.level(t)
    alpha, s = (values.reshape(-1, 1, 1, 1) for values in (level.alpha, level.sigma / level.alpha))
    y = (1 + s) * torch.randn(5, 1, 1, 2).double()
    u = velocity(alpha * y, mixture(corruption).denoise(alpha * y, t), level)
    ds = (level.sigma_rate - level.alpha_rate * level.sigma / level.alpha) / level.alpha
    dy = (u - level.alpha_rate.reshape(-1, 1, 1, 1) * y) / alpha
    denoised = mixture(Gaussian(EDM())).denoise(y, (level.sigma / level.alpha) / 80).mean
    torch.testing.assert_close(dy / ds.reshape(-1, 1, 1, 1), (y - denoised) / s, rtol=1e-7, atol=1e-9)


@every_schedule
def test_ddim_makes_the_same_images_through_every_corruption(schedule):
    """From one y and through the same levels s, as it is Euler's method for y in s."""
    torch.manual_seed(0)
    start, grid = torch.randn(4, 1, 1, 2).double(), Rho(10.0, 0.02)
    expected = Restore(12, grid, Eta(0.0), clip=False)(
        mixture(Exact(EDM(), 10 * start)), Keys(torch.arange(4), 0)
    )
    scale = schedule.alpha(grid(12, Gaussian(schedule))[0])
    found = Restore(12, grid, Eta(0.0), clip=False)(
        mixture(Exact(schedule, 10 * scale * start)), Keys(torch.arange(4), 0)
    )
    torch.testing.assert_close(found.images, expected.images, rtol=0, atol=2e-8)


@pytest.mark.parametrize("schedule", SCHEDULES[2:], ids=lambda schedule: type(schedule).__name__)
def test_trajectories_of_gaussian_data_are_known(schedule):
    """x_t = a_t mu + (x_1 - a_1 mu) sqrt((a_t^2 c^2 + s_t^2) / (a_1^2 c^2 + s_1^2)), mu not being zero. (A
    table's second derivative jumps, which limits the solver; see its own tests.)"""
    mean, std, first = 0.4, 0.6, 0.99
    start = 1.3 * schedule.terminal_std
    model = GaussianOracle(Exact(schedule, start), (1, 1, 1), mean, std)
    for last in (0.7, 0.3, 0.05):
        times = at(first, last)
        alpha, sigma = schedule.alpha(times), schedule.sigma(times)
        power = (alpha**2 * std**2 + sigma**2).sqrt()
        exact = alpha[1] * mean + (start - alpha[0] * mean) * power[1] / power[0]
        sampler = RungeKutta45(rtol=1e-9, atol=1e-11, start=first, end=last, denoise=False)
        found = sampler(model, Keys(torch.arange(1), 0)).images
        assert float(found) == pytest.approx(float(exact), rel=1e-7)


@pytest.mark.parametrize("c", [0.3, 1.0, 2.0])
def test_the_velocity_of_flow_is_the_papers(c):
    """In their time tau = 1 - t, from noise to data: v = x (tau c^2 - (1 - tau)) / (tau^2 c^2 + (1 - tau)^2),
    and v = (x + (1 - tau) score) / tau (Liu et al. 2023; Lipman et al. 2023)."""
    corruption, tau = Gaussian(Flow()), torch.linspace(0, 0.99, 12, dtype=torch.float64)
    x, t = torch.linspace(-2, 2, 12).double().reshape(-1, 1, 1, 1), 1 - tau
    estimate = GaussianOracle(corruption, (1, 1, 1), std=c).denoise(x, t)
    found = -velocity(x, estimate, corruption.level(t)).flatten()
    power = tau**2 * c**2 + (1 - tau) ** 2
    expected = x.flatten() * (tau * c**2 - (1 - tau)) / power
    torch.testing.assert_close(found, expected)
    score = -x.flatten() / power
    torch.testing.assert_close(found[1:], ((x.flatten() + (1 - tau) * score) / tau)[1:])


def test_flow_scales_noise_to_the_data():
    """The whole map of N(0, c^2) is the factor c. Heun's method finds it with an error that falls as the
    square of the step, Euler's in 200 steps with 1.5 per cent less variance."""
    model = GaussianOracle(Exact(Flow()), (1, 1, 1), std=0.5)
    errors = [
        float(Heun(steps, Uniform())(model, Keys(torch.arange(1), 0)).images) / 0.5 - 1
        for steps in (100, 200, 400)
    ]
    assert abs(errors[-1]) < 1e-4
    assert [coarse / fine for coarse, fine in pairwise(errors)] == pytest.approx([4, 4], abs=0.2)
    euler = Restore(200, Uniform(), EulerMaruyama(0.0), clip=False)(model, Keys(torch.arange(1), 0)).images
    assert float(euler) ** 2 / 0.25 - 1 == pytest.approx(-0.0147, abs=5e-5)


@pytest.mark.parametrize("s", [0.9, 0.4, 0.0])
def test_flow_to_one_point_is_a_straight_line(s):
    """Data that is one image: Euler's step from pure noise, of any length, is exact."""
    torch.manual_seed(0)
    data, noise = torch.rand(1, 1, 2, 2).double(), torch.randn(3, 1, 2, 2).double()
    corruption = Gaussian(Flow())
    estimate = DataOracle(corruption, data).denoise(noise, at(1.0).squeeze())
    end = EulerMaruyama(0.0).law(corruption, noise, estimate, at(s).squeeze(), at(1.0).squeeze()).mean
    torch.testing.assert_close(end, (1 - s) * data + s * noise)


class Coupled(GaussianOracle):
    """The denoiser of straight lines between given pairs of numbers, in increasing order both: none cross, so
    that x_t says which line it is on."""

    def __init__(self, noise: Tensor, data: Tensor) -> None:
        super().__init__(Exact(Flow(), noise.reshape(-1, 1, 1, 1)), (1, 1, 1))
        self.noise, self.data = noise, data

    def denoise(self, x_t, t, labels=None):
        lines = torch.lerp(self.data, self.noise, t)
        above = torch.searchsorted(lines, x_t.flatten()).clamp(1, len(lines) - 1)
        share = (x_t.flatten() - lines[above - 1]) / (lines[above] - lines[above - 1])
        return Posterior(torch.lerp(self.data[above - 1], self.data[above], share).reshape(x_t.shape))


def test_flow_through_a_monotone_map_is_straight_and_maps_to_itself():
    """Noise z and data T(z) by the ODE of a mixture in one dimension, where no two paths cross. The flow
    trained on such pairs has the velocity z - T(z) along each line; Euler's method in any number of steps
    is exact, and gives the same pairs again (Liu et al. 2023, theorem 3.6)."""
    z = torch.linspace(-3, 3, 41, dtype=torch.float64)
    first = MixtureOracle(
        Exact(Flow(), z.reshape(-1, 1, 1, 1)), [[[[-1.0]]], [[[0.5]]]], [0.2, 0.3], [0.3, 0.7]
    )
    keys = Keys(torch.arange(41), 0)
    data = RungeKutta45(rtol=1e-8, atol=1e-10)(first, keys).images.flatten()
    assert bool((data.diff() > 0).all())
    curved = Restore(1, Uniform(), EulerMaruyama(0.0), clip=False)(first, keys).images.flatten()
    assert float((curved - data).abs().max()) > 0.5  # the first flow is not straight
    second = Coupled(z, data)
    for steps in (1, 3, 10):
        again = Restore(steps, Uniform(), EulerMaruyama(0.0), clip=False)(second, keys).images.flatten()
        torch.testing.assert_close(again, data, rtol=0, atol=1e-12)
    for t in at(0.1, 0.5, 0.9):
        x_t = torch.lerp(data, z, t).reshape(-1, 1, 1, 1)
        straight = velocity(x_t, second.denoise(x_t, t), second.corruption.level(t)).flatten()
        torch.testing.assert_close(straight, z - data, rtol=0, atol=1e-11)


@pytest.mark.parametrize("schedule", [Linear(), VP(), EDM()], ids=lambda schedule: type(schedule).__name__)
def test_what_ddim_encodes_it_decodes(schedule):
    """From t = .05 to 1 and back in as many steps: the error of the round trip falls as the step does."""
    model = GaussianOracle(Gaussian(schedule), (1, 1, 1), std=0.5)
    ends = schedule.half_log_snr(at(0.05, 1.0)).tolist()
    errors = []
    for steps in (50, 100):
        times = schedule.time_at(torch.linspace(*ends, steps + 1, dtype=torch.float64))
        x = torch.ones(1, 1, 1, 1, dtype=torch.float64)
        for t, s in [*pairwise(times), *pairwise(times.flip(0))]:
            x = Mixed(0.0).law(model.corruption, x, model.denoise(x, t), s, t).mean
        errors.append(abs(float(x) - 1))
    assert errors[0] < 0.1
    assert math.log2(errors[0] / errors[1]) == pytest.approx(1, abs=0.1), errors
