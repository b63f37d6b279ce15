"""Published constants of the schedules (Ho et al. 2020; Nichol & Dhariwal 2021; kexue.fm 9119)."""

from __future__ import annotations

import pytest
import torch

from genbench.corruptions.continuous import VP
from genbench.corruptions.schedules import Cosine, DiscreteVP, Linear, Su


def at(index: int, total: int = 1000) -> torch.Tensor:
    return torch.tensor(index / total, dtype=torch.float64)


@pytest.mark.parametrize(
    ("index", "expected", "tolerance"), [(1, 0.9999, 1e-12), (500, 0.078587, 5e-7), (1000, 4.03583e-5, 5e-11)]
)
def test_linear_schedule_has_hos_constants(index, expected, tolerance):
    assert abs(float(Linear().alpha(at(index)) ** 2) - expected) < tolerance


def test_the_signal_left_at_the_end():
    assert abs(float(Linear().alpha(at(1000))) - 0.0063528) < 5e-8
    assert abs(float(Su().alpha(at(1000))) - 0.0064820) < 5e-8


def test_cosine_schedule_of_4000_steps():
    schedule = Cosine(4000)
    ratios = schedule.log_alphas.diff().mul(2).exp()
    betas = 1 - ratios
    assert abs(float(betas[0]) - 9.8658e-6) < 5e-11
    assert torch.allclose(betas[-3:], torch.tensor([0.55556, 0.75, 0.999], dtype=torch.float64), atol=5e-6)
    assert abs(float(schedule.alpha(at(2000, 4000)) ** 2) - 0.493844) < 5e-7


@pytest.mark.parametrize(
    "schedule", [Linear(), Cosine(), Su(), Linear(steps=50)], ids=lambda s: type(s).__name__
)
def test_variance_is_preserved_and_noise_grows(schedule: DiscreteVP):
    t = torch.linspace(0, 1, schedule.steps + 1, dtype=torch.float64)
    alpha, sigma = schedule.alpha(t), schedule.sigma(t)
    assert torch.allclose(alpha**2 + sigma**2, torch.ones_like(t), atol=1e-14)
    assert (sigma.diff() > 0).all()
    assert float(alpha[0]) == 1
    assert float(sigma[0]) == 0


def test_single_steps_compose_to_the_marginal():
    """The product of one-step signal levels is alpha, and the accumulated variance is sigma squared."""
    schedule = Linear()
    betas = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)
    variance = torch.zeros((), dtype=torch.float64)
    signal = torch.ones((), dtype=torch.float64)
    for i, beta in enumerate(betas, 1):
        signal, variance = signal * (1 - beta).sqrt(), (1 - beta) * variance + beta
        if i in (1, 10, 500, 1000):
            assert abs(schedule.alpha(at(i)) - signal) < 1e-14
            assert abs(schedule.sigma(at(i)) ** 2 - variance) < 1e-13


def test_grid_times_read_the_table_exactly():
    schedule = Linear()
    t = torch.arange(1001, dtype=torch.float64) / 1000
    assert torch.equal(schedule.log_alpha(t), schedule.log_alphas)


@pytest.mark.parametrize(
    "schedule", [Linear(), Cosine(), Su(), Linear(steps=2), Linear(steps=1)], ids=lambda s: type(s).__name__
)
def test_between_grid_times_the_signal_falls_and_its_slope_is_continuous(schedule):
    t = torch.linspace(0, 1, 10_007, dtype=torch.float64)
    assert (schedule.log_alpha(t).diff() < 0).all()
    grid = torch.arange(1, schedule.steps, dtype=torch.float64) / schedule.steps
    tiny = 1e-7 / schedule.steps
    before, after = schedule.alpha_rate(grid - tiny), schedule.alpha_rate(grid + tiny)
    torch.testing.assert_close(before, after, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("steps", [50, 400])
def test_the_cubic_is_nearer_to_the_continuous_schedule_than_straight_lines(steps):
    grid = torch.arange(steps + 1, dtype=torch.float64) / steps
    schedule = DiscreteVP(-torch.expm1(2 * VP().log_alpha(grid).diff()))
    middle = (grid[1:] + grid[:-1]) / 2
    straight = (schedule.log_alphas[1:] + schedule.log_alphas[:-1]) / 2
    errors = [
        (values - VP().log_alpha(middle)).abs().max() for values in (schedule.log_alpha(middle), straight)
    ]
    assert errors[0] < errors[1] / 5


def test_networks_are_told_hos_zero_based_index():
    t = torch.tensor([0.001, 0.5, 1.0], dtype=torch.float64)
    assert torch.equal(Linear().conditioning(t), torch.tensor([0.0, 499.0, 999.0]))


def test_training_times_are_uniform_over_1_to_T():
    torch.manual_seed(0)
    t = Linear(steps=10).draw_times(100_000, torch.device("cpu"))
    values, counts = torch.unique(t, return_counts=True)
    assert torch.allclose(values, torch.arange(1, 11, dtype=torch.float64) / 10)
    assert ((counts - 10_000).double() ** 2 / 10_000).sum() < 9 + 5 * 18**0.5
