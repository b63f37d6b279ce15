"""Schedules in continuous time: published constants, rates, the equations they solve, levels and times."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from genbench.contracts import UserError
from genbench.corruptions.continuous import EDM, VE, VP, Flow, Geometric, SubVP
from genbench.corruptions.gaussian import Gaussian
from genbench.corruptions.gaussian_rules import squared_diffusion
from genbench.corruptions.schedules import Cosine, DiscreteVP, Linear, Schedule, Su
from genbench.ops.random import Keys, Stream

CPU = torch.device("cpu")
SMOOTH = [VP(), SubVP(), VE(0.01, 50.0), EDM(), Flow()]
TABLED = [Linear(), Cosine(40), Su(100), Geometric(10, 0.01, 1.0)]
by_name = {"ids": lambda schedule: type(schedule).__name__}
every_smooth = pytest.mark.parametrize("schedule", SMOOTH, **by_name)
every_schedule = pytest.mark.parametrize("schedule", SMOOTH + TABLED, **by_name)


def at(*times: float) -> Tensor:
    return torch.tensor(times, dtype=torch.float64)


@pytest.mark.parametrize(
    ("schedule", "alpha", "sigma"),
    [
        (VP(), [0.2811829, 0.0065716], [0.9596542, 0.9999784]),
        (SubVP(), [0.2811829, 0.0065716], [0.9209362, 0.9999568]),
        (VE(0.01, 50.0), [1.0, 1.0], [0.5**0.5, 50.0]),
        (EDM(), [1.0, 1.0], [40.0, 80.0]),
        (Flow(), [0.5, 0.0], [0.5, 1.0]),
    ],
    **by_name,
)
def test_levels_at_half_time_and_at_the_end(schedule, alpha, sigma):
    """Song et al. 2021 with beta from .1 to 20; VE's middle is the geometric mean of its ends."""
    t = at(0.5, 1.0)
    torch.testing.assert_close(schedule.alpha(t), at(*alpha), rtol=0, atol=5e-8)
    torch.testing.assert_close(schedule.sigma(t), at(*sigma), rtol=0, atol=5e-8)


@every_schedule
def test_half_the_log_snr_is_that_of_the_levels(schedule):
    t = at(0.1, 0.5, 0.9)
    torch.testing.assert_close(schedule.half_log_snr(t), (schedule.alpha(t) / schedule.sigma(t)).log())


def slope(values: Callable[[Tensor], Tensor], t: Tensor, h: float) -> Tensor:
    return (values(t + h) - values(t - h)) / (2 * h)


def one_sided(values: Callable[[Tensor], Tensor], t: Tensor, h: float) -> Tensor:
    return (4 * values(t + h) - 3 * values(t) - values(t + 2 * h)) / (2 * h)


@every_smooth
def test_rates_are_the_slopes_of_the_levels(schedule):
    """Central differences in float64."""
    t = torch.linspace(0.05, 0.95, 19, dtype=torch.float64)
    for level, rate in ((schedule.alpha, schedule.alpha_rate), (schedule.sigma, schedule.sigma_rate)):
        torch.testing.assert_close(rate(t), slope(level, t, 1e-5), rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("schedule", TABLED, **by_name)
def test_rates_between_times_and_on_both_sides_of_times_are_slopes(schedule):
    """At its times i / T a table has no kinks but in its second derivative: one-sided differences of second
    order agree there. Nor have geometric levels above the lowest."""
    steps = schedule.steps
    i = torch.arange(2, steps + 1, dtype=torch.float64)
    h = 1e-3 / steps
    for level, rate in ((schedule.alpha, schedule.alpha_rate), (schedule.sigma, schedule.sigma_rate)):
        for share in (0.2, 0.5, 0.8):
            inside = (i - share) / steps
            torch.testing.assert_close(rate(inside), slope(level, inside, h), rtol=5e-5, atol=1e-9)
        for t, side in ((i / steps, -h), (i[:-1] / steps, h)):
            torch.testing.assert_close(rate(t), one_sided(level, t, side), rtol=5e-5, atol=1e-9)


LOG_RATIO = math.log(50.0 / 0.01)
B = lambda t: 0.1 * t + 0.5 * 19.9 * t**2
BETA = lambda t: 0.1 + 19.9 * t
# f and g^2 of dx = f x dt + g dw as the papers print them, and the variance at t = 0.
EQUATIONS = {
    "VP": (VP(), lambda t: -0.5 * BETA(t), BETA, 0.0),
    "SubVP": (SubVP(), lambda t: -0.5 * BETA(t), lambda t: BETA(t) * (1 - math.exp(-2 * B(t))), 0.0),
    "VE": (
        VE(0.01, 50.0),
        lambda t: 0.0,
        lambda t: 2 * (0.01 * math.exp(LOG_RATIO * t)) ** 2 * LOG_RATIO,
        0.01**2,
    ),
    "EDM": (EDM(), lambda t: 0.0, lambda t: 2 * 80.0**2 * t, 0.0),
    "Flow": (Flow(), lambda t: -1 / (1 - t), lambda t: 2 * t / (1 - t), 0.0),
}
every_equation = pytest.mark.parametrize("name", EQUATIONS)


@every_equation
def test_drift_and_diffusion_are_the_papers(name):
    schedule, drift, square, _ = EQUATIONS[name]
    t = torch.linspace(0.02, 0.98, 25, dtype=torch.float64)
    level = Gaussian(schedule).level(t)
    torch.testing.assert_close(level.alpha_rate / level.alpha, at(*(drift(float(u)) for u in t)))
    torch.testing.assert_close(squared_diffusion(level), at(*(square(float(u)) for u in t)))


@every_equation
def test_the_variance_solves_the_equation_of_the_process(name):
    """dv/dt = 2 f v + g^2 by the classical Runge-Kutta method, from f and g^2 as they are printed."""
    schedule, drift, square, v = EQUATIONS[name]
    end, steps = (0.9, 1000) if name == "Flow" else (1.0, 1000)
    h, rate = end / steps, lambda t, v: 2 * drift(t) * v + square(t)
    for step in range(steps):
        t = step * h
        k1 = rate(t, v)
        k2 = rate(t + h / 2, v + h / 2 * k1)
        k3 = rate(t + h / 2, v + h / 2 * k2)
        k4 = rate(t + h, v + h * k3)
        v += h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
    assert float(schedule.sigma(at(end))) ** 2 == pytest.approx(v, rel=1e-7)
    if name == "SubVP":
        assert v == pytest.approx(0.9999136, abs=5e-8)


shares = st.lists(st.floats(0.0, 1.0), min_size=1, max_size=20)


@every_schedule
@settings(max_examples=15, deadline=None)
@given(shares=shares)
def test_times_and_log_snrs_are_inverse_to_each_other(schedule: Schedule, shares):
    """From the first time with a slope (1 / L of geometric levels, below which the level stays) to just
    before the last. A table snaps to its times within 1e-9 of their distance."""
    first = 1 / schedule.steps if schedule.steps else 1e-4
    t = first + (0.9999 - first) * at(*shares)
    lambdas = schedule.half_log_snr(t)
    found = schedule.time_at(lambdas)
    if isinstance(schedule, Geometric):  # the lowest level is also that of all times below
        assert bool((found <= t + 1e-12).all())
    else:
        torch.testing.assert_close(found, t, rtol=0, atol=1e-12 + 1.1e-9 / (schedule.steps or 1e9))
    if not isinstance(schedule, DiscreteVP):
        torch.testing.assert_close(schedule.half_log_snr(found), lambdas, rtol=0, atol=1e-10)


@every_schedule
def test_log_snrs_fall(schedule):
    t = torch.linspace(1 / (schedule.steps or 1000), 0.999, 400, dtype=torch.float64)
    assert bool((schedule.half_log_snr(t).diff() < 0).all())


@pytest.mark.parametrize("schedule", [VE(0.01, 50.0), EDM(), Geometric(10, 0.01, 1.0)], **by_name)
def test_nothing_is_noise_at_the_data(schedule):
    """Though the smallest level is not zero."""
    assert float(schedule.sigma(at(0.0))) == 0
    assert float(schedule.alpha(at(0.0))) == 1


@given(st.floats(1e-3, 1.0), st.floats(0.01, 1.0), st.floats(2.0, 30.0))
def test_noise_over_signal_of_vp_is_edms_wrapping_of_it(t, low, high):
    """sigma(t) = sqrt(exp(beta_d t^2 / 2 + beta_min t) - 1) (Karras et al. 2022, table 1)."""
    schedule = VP(low, high)
    found = float(schedule.sigma(at(t)) / schedule.alpha(at(t)))
    assert found == pytest.approx(math.sqrt(math.expm1(0.5 * (high - low) * t**2 + low * t)), rel=1e-9)


@pytest.mark.parametrize(
    ("schedule", "std"),
    [
        (VP(), 1.0),
        (SubVP(), 1.0),
        (Flow(), 1.0),
        (Linear(), 1.0),
        (VE(0.01, 50.0), 50.0),
        (EDM(), 80.0),
        (Geometric(232, 0.01, 50.0), 50.0),
    ],
    **by_name,
)
def test_sampling_starts_from_the_noise_at_the_end(schedule, std):
    """std times unit normals: sigma_max without scaling, not the root of sigma_max^2 + 1."""
    keys = Keys(torch.arange(3), 0)
    found = Gaussian(schedule).terminal((3, 1, 4, 4), keys, {})
    torch.testing.assert_close(found, std * keys.normal((1, 4, 4), stream=Stream.TERMINAL))
    assert float(schedule.sigma(at(1.0))) == pytest.approx(std, rel=5e-5)


@pytest.mark.parametrize(
    ("levels", "low", "high", "ratio"),
    [(10, 0.01, 1.0, 0.59948), (232, 0.01, 50.0, 0.96380), (500, 0.01, 90.0, 0.98192)],
)
def test_geometric_levels_are_the_published_ones(levels, low, high, ratio):
    """NCSN, and NCSNv2 for CIFAR-10 and CelebA: ends and ratios (Song & Ermon 2019, 2020)."""
    t = torch.arange(1, levels + 1, dtype=torch.float64) / levels
    found = Geometric(levels, low, high).sigma(t)
    assert (float(found[0]), float(found[-1])) == pytest.approx((low, high), rel=1e-15)
    torch.testing.assert_close(found[:-1] / found[1:], torch.full_like(t[1:], ratio), rtol=0, atol=5e-6)


def test_below_the_lowest_level_the_noise_stays():
    schedule = Geometric(10, 0.01, 1.0)
    assert schedule.sigma(at(0.03, 0.1)).tolist() == [0.01, 0.01]
    assert float(schedule.sigma_rate(at(0.03))) == 0


def test_networks_are_told_times_on_ddpms_scale_and_levels_by_their_logarithm():
    t = at(0.1, 0.5, 1.0)
    for schedule in (VP(), SubVP(), Flow()):
        assert schedule.conditioning(t).tolist() == pytest.approx([99.9, 499.5, 999.0], rel=1e-6)
    assert VE(0.01, 100.0).conditioning(at(0.5, 1.0)).tolist() == pytest.approx(
        [0.0, math.log(100)], abs=1e-6
    )
    assert EDM().conditioning(t[2:]).tolist() == pytest.approx([math.log(80) / 4])
    assert Geometric(10, 0.01, 1.0).conditioning(t).tolist() == pytest.approx([0.0, 444.0, 999.0])


@pytest.mark.parametrize(("schedule", "least"), [(VP(), 1e-5), (VE(0.01, 50.0, 0.3), 0.3), (Flow(), 0.0)])
def test_training_times_are_uniform_from_the_least_to_one(schedule, least):
    torch.manual_seed(0)
    t = schedule.draw_times(100_000, CPU)
    assert t.dtype == torch.float64
    assert least <= float(t.min()) < least + 1e-3
    assert 1 - 1e-3 < float(t.max()) <= 1
    counts = torch.histc((t - least) / (1 - least), 10, 0, 1)
    assert float(((counts - 10_000) ** 2 / 10_000).sum()) < 9 + 5 * 18**0.5


def test_geometric_levels_are_trained_equally_often():
    torch.manual_seed(0)
    values, counts = torch.unique(Geometric(10, 0.01, 1.0).draw_times(100_000, CPU), return_counts=True)
    torch.testing.assert_close(values, torch.arange(1, 11, dtype=torch.float64) / 10)
    assert float(((counts - 10_000).double() ** 2 / 10_000).sum()) < 9 + 5 * 18**0.5


def test_edm_is_trained_at_log_normal_levels():
    """ln sigma ~ N(-1.2, 1.2^2): the shares of a normal law below its quantiles, and both moments."""
    torch.manual_seed(0)
    schedule, count = EDM(), 200_000
    z = (schedule.sigma(schedule.draw_times(count, CPU)).log() + 1.2) / 1.2
    assert abs(float(z.mean())) < 5 / count**0.5
    assert abs(float(z.var()) - 1) < 5 * (2 / count) ** 0.5
    for quantile, share in ((-2.0, 0.022750), (-1.0, 0.158655), (0.0, 0.5), (1.0, 0.841345), (2.0, 0.977250)):
        assert abs(float((z < quantile).double().mean()) - share) < 5 * (share * (1 - share) / count) ** 0.5


def test_impossible_levels_are_refused():
    for make in (lambda low, high: VE(low, high), lambda low, high: Geometric(10, low, high)):
        for low, high in ((0.0, 1.0), (1.0, 1.0), (2.0, 1.0)):
            with pytest.raises(UserError, match="0 < min < max"):
                make(low, high)
    with pytest.raises(UserError, match="at least 2"):
        Geometric(1, 0.01, 1.0)
