"""Gaussian corruption: DDPM's posterior, DDIM's family, and the marginals they keep."""

from __future__ import annotations

import pytest
import torch

from genbench.contracts import Posterior
from genbench.corruptions.continuous import EDM, VE, VP, Flow, Geometric, SubVP
from genbench.corruptions.gaussian import Gaussian
from genbench.corruptions.gaussian_rules import Eta, LargeVariance, transition
from genbench.corruptions.rules import Mixed
from genbench.corruptions.schedules import Cosine, Linear
from genbench.ops.random import Keys

BETAS = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)
ALPHA_BARS = (1 - BETAS).cumprod(0)
SCHEDULES = [Linear(), Cosine(), VP(), SubVP(), VE(0.02, 100.0), EDM(), Flow(), Geometric(1000, 0.02, 2.0)]
every_schedule = pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda schedule: type(schedule).__name__)


def time(index: int) -> torch.Tensor:
    return torch.tensor(index / 1000, dtype=torch.float64)


def law(corruption: Gaussian, s: int, t: int, rule, x_t=None, x0=None):
    x = torch.zeros(1, 1, 1, 1, dtype=torch.float64)
    return rule.law(
        corruption, x if x_t is None else x_t, Posterior(x if x0 is None else x0), time(s), time(t)
    )


@pytest.mark.parametrize("i", range(2, 1001, 37))
def test_eta_one_is_ddpms_posterior(i):
    """Mean coefficients and variance of q(x_{i-1} | x_i, x_0) from Ho et al. 2020, eq. 7, to 1e-12."""
    bar, before, beta = ALPHA_BARS[i - 1], ALPHA_BARS[i - 2], BETAS[i - 1]
    found = law(Gaussian(Linear()), i - 1, i, Eta(1.0))
    assert abs(found.coefficients[0] - (1 - beta).sqrt() * (1 - before) / (1 - bar)) < 1e-12
    assert abs(found.coefficients[1] - before.sqrt() * beta / (1 - bar)) < 1e-12
    assert abs(found.std**2 - beta * (1 - before) / (1 - bar)) < 1e-12


@pytest.mark.parametrize(
    ("i", "variance", "kept", "added"),
    [(501, 0.01005134, 0.99410435, 0.00305806), (500, 0.01003136, 0.99410667, 0.00307007)],
)
def test_published_posterior_constants(i, variance, kept, added):
    found = law(Gaussian(Linear()), i - 1, i, Eta(1.0))
    assert abs(float(found.std**2) - variance) < 5e-9
    assert abs(float(found.coefficients[0]) - kept) < 5e-9
    assert abs(float(found.coefficients[1]) - added) < 5e-9


@pytest.mark.parametrize("i", [2, 100, 1000])
def test_large_variance_is_beta_with_the_posteriors_mean(i):
    corruption = Gaussian(Linear())
    large, small = law(corruption, i - 1, i, LargeVariance()), law(corruption, i - 1, i, Eta(1.0))
    assert abs(large.std**2 - BETAS[i - 1]) < 1e-12
    assert torch.equal(torch.stack(list(large.coefficients)), torch.stack(list(small.coefficients)))


@pytest.mark.parametrize("rule", [Eta(0.0), Eta(1.0), LargeVariance(), Mixed(0.0), Mixed(0.5), Mixed(1.0)])
def test_the_last_step_returns_the_estimate(rule):
    x0 = torch.randn(2, 1, 3, 3, dtype=torch.float64)
    x_t = torch.randn(2, 1, 3, 3, dtype=torch.float64)
    found = law(Gaussian(Linear()), 0, 17, rule, x_t, x0)
    assert torch.equal(found.sample(Keys(torch.arange(2), 0), 0), x0)


@pytest.mark.parametrize("rule", [Eta(0.0), Eta(1.0), LargeVariance(), Mixed(0.0)])
def test_a_repeated_time_changes_nothing(rule):
    x_t = torch.randn(2, 1, 3, 3, dtype=torch.float64)
    found = law(Gaussian(Linear()), 17, 17, rule, x_t, torch.randn_like(x_t))
    assert torch.allclose(found.sample(Keys(torch.arange(2), 0), 0), x_t, atol=1e-14)


@pytest.mark.parametrize("rule", [Eta(0.0), Eta(0.3), Eta(1.0), Mixed(0.0), Mixed(0.4), Mixed(1.0)])
@every_schedule
@pytest.mark.parametrize(("s", "t"), [(1, 2), (250, 700), (900, 1000)])
def test_marginals_are_kept_given_the_true_x0(rule, schedule, s, t):
    """x_t ~ N(a_t x0, s_t^2) through the kernel gives x_s ~ N(a_s x0, s_s^2): condition (*)."""
    corruption = Gaussian(schedule)
    found = law(corruption, s, t, rule)
    on_x_t, on_x0 = found.coefficients
    assert abs(on_x_t * corruption.alpha(time(t)) + on_x0 - corruption.alpha(time(s))) < 1e-12
    variance = (on_x_t * corruption.sigma(time(t))) ** 2 + found.std**2
    expected = corruption.sigma(time(s)) ** 2
    assert abs(variance - expected) < 1e-12 * max(1.0, float(expected))


@every_schedule
@pytest.mark.parametrize(("s", "t"), [(1, 2), (250, 700), (800, 900)])
def test_eta_one_is_the_posterior_of_any_corruption(schedule, s, t):
    """q(x_s | x_t, x0) by Bayes' rule from x_s ~ N(a_s x0, s_s^2) and x_t ~ N(r x_s, s_ts^2), r = a_t / a_s:
    precisions add, and the mean is the weighted one."""
    corruption = Gaussian(schedule)
    (alpha_s, alpha_t), (sigma_s, sigma_t) = (
        (level(time(s)), level(time(t))) for level in (corruption.alpha, corruption.sigma)
    )
    ratio = alpha_t / alpha_s
    transition = sigma_t**2 - ratio**2 * sigma_s**2
    variance = 1 / (1 / sigma_s**2 + ratio**2 / transition)
    found = law(corruption, s, t, Eta(1.0))
    torch.testing.assert_close(found.std**2, variance, rtol=1e-9, atol=0)
    torch.testing.assert_close(found.coefficients[0], variance * ratio / transition, rtol=1e-9, atol=0)
    torch.testing.assert_close(found.coefficients[1], variance * alpha_s / sigma_s**2, rtol=1e-9, atol=1e-13)


def test_the_mean_of_a_step_moves_a_point_along_its_own_path():
    """For x_t = a_t x0 exactly, the posterior's mean is a_{t-1} x0."""
    corruption = Gaussian(Linear())
    for i in (2, 500, 1000):
        on_x_t, on_x0 = law(corruption, i - 1, i, Eta(1.0)).coefficients
        assert abs(on_x_t * corruption.alpha(time(i)) + on_x0 - corruption.alpha(time(i - 1))) < 1e-13


def test_prior_mismatch_is_about_half_the_signal_left():
    """KL(q(x_T | x0) || N(0, I)) is 2.0e-5 nats per dimension of unit second moment."""
    corruption = Gaussian(Linear())
    alpha, variance = corruption.alpha(time(1000)), corruption.sigma(time(1000)) ** 2
    nats = 0.5 * (variance + alpha**2 - 1 - variance.log())
    assert abs(nats - 0.5 * alpha**2) < 1e-8
    assert abs(nats - 2.0e-5) < 0.05e-5


def test_times_may_differ_within_a_batch():
    corruption = Gaussian(Linear())
    x0, noise = torch.randn(3, 1, 2, 2), torch.randn(3, 1, 2, 2)
    t = torch.tensor([0.1, 0.5, 1.0], dtype=torch.float64)
    together = corruption.apply(x0, noise, t)
    for i in range(3):
        assert torch.equal(together[i], corruption.apply(x0[i : i + 1], noise[i : i + 1], t[i])[0])


@pytest.mark.parametrize("schedule", [Linear(), Cosine()], ids=["linear", "cosine"])
def test_rule_three_is_ddpms_step_and_ddims_bit_for_bit(schedule):
    """The share sigma_ts / sigma_t gives the posterior's step, 0 the deterministic one, of shared noise."""
    corruption, keys = Gaussian(schedule), Keys(torch.arange(2), 0)
    x_t, x0 = torch.randn(2, 2, 1, 3, 3).unbind()
    for i in range(2, 1001):
        share = float(
            transition(corruption.level(time(i - 1)), corruption.level(time(i))) / corruption.sigma(time(i))
        )
        for rule, other in ((Mixed(share), Eta(1.0)), (Mixed(0.0), Eta(0.0))):
            steps = [law(corruption, i - 1, i, each, x_t, x0).sample(keys, i) for each in (rule, other)]
            assert torch.equal(*steps)


def test_levels_remembered_in_inference_mode_can_be_used_where_gradients_are_taken():
    corruption, t = Gaussian(Linear()), torch.tensor(0.5, dtype=torch.float64)
    with torch.inference_mode():
        within = corruption.level(t.clone())
    assert corruption.level(t) is within
    weight = torch.ones((), requires_grad=True)
    (corruption.alpha(t) * weight).square().backward()
    assert weight.grad == pytest.approx(2 * float(corruption.schedule.alpha(t)) ** 2)


def test_levels_of_one_time_are_those_of_a_batch_of_times():
    corruption, times = Gaussian(VP()), torch.linspace(0.001, 1, 7, dtype=torch.float64)
    batch, single = corruption.level(times), [corruption.level(t) for t in times]
    for name in ("t", "alpha", "sigma", "alpha_rate", "sigma_rate"):
        assert torch.equal(getattr(batch, name), torch.stack([getattr(each, name) for each in single])), name
    asked = times[2].clone().requires_grad_(True)
    corruption.alpha(asked).backward()
    assert asked.grad == pytest.approx(float(corruption.level(times[2]).alpha_rate), rel=1e-6)


@every_schedule
def test_no_noise_is_a_positive_zero(schedule):
    """1 / sigma at the data is infinity and not its negative, whose logarithm would be none."""
    assert float(1 / Gaussian(schedule).sigma(time(0))) > 0
