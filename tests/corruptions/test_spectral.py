"""Blurring diffusion: Gaussian corruption one coefficient at a time, and nothing else."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch

from genbench.contracts import Posterior
from genbench.corruptions.bases import Cosines
from genbench.corruptions.continuous import VP, Flow
from genbench.corruptions.fading import GeometricWidth, Heat, Pixelation, SineWidth
from genbench.corruptions.gaussian import Gaussian
from genbench.corruptions.gaussian_rules import Eta, EulerMaruyama, LargeVariance, ReverseDiffusion
from genbench.corruptions.rules import Mixed
from genbench.corruptions.schedules import Cosine, Linear
from genbench.corruptions.spectral import Spectral, SpectralLaw
from genbench.generators.estimators import Regression, Trial
from genbench.generators.parameterisations import EDM, X0, Epsilon, Score, V, Velocity
from genbench.generators.weightings import Noise
from genbench.ops.random import Keys
from genbench.samplers.grids import Uniform
from genbench.samplers.restore import Restore

SHAPE = (3, 8, 8)
FADINGS = {
    "heat": Heat(SineWidth(20.0), least=0.001),
    "geometric heat": Heat(GeometricWidth(0.3, 6.0), least=0.001),
    "pixelation": Pixelation(least=0.01),
}
every_fading = pytest.mark.parametrize("fading", FADINGS.values(), ids=FADINGS.keys())
SCHEDULES = [Linear(), Cosine(), VP(), Flow()]
every_schedule = pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda schedule: type(schedule).__name__)


def time(value: float) -> torch.Tensor:
    return torch.tensor(value, dtype=torch.float64)


def images(count: int, shape=SHAPE, seed: int = 0) -> torch.Tensor:
    """Normals, float32."""
    return Keys(torch.arange(count), seed).normal(shape, step=99)


# -------------------------------------------------------------------------------- with nothing to be blurred


def plain(schedule) -> tuple[Spectral, Gaussian]:
    """A blur of no width over `schedule`, and `schedule` itself."""
    return Spectral(schedule, Heat(SineWidth(0.0)), SHAPE), Gaussian(schedule)


@every_schedule
def test_without_blur_it_corrupts_as_gaussian_corruption_does(schedule):
    spectral, gaussian = plain(schedule)
    x0, keys = images(3), Keys(torch.arange(3), 1)
    noise = spectral.draw(x0.shape, keys)
    assert torch.equal(noise, gaussian.draw(x0.shape, keys))
    for t in (time(0.3), torch.tensor([0.1, 0.5, 1.0], dtype=torch.float64)):
        found, expected = (each.apply(x0, noise, t) for each in (spectral, gaussian))
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    start, expected = (each.terminal(x0.shape, keys, {}) for each in (spectral, gaussian))
    assert torch.equal(start, expected)


@pytest.mark.parametrize(
    "rule",
    [
        *(Eta(0.0), Eta(1.0), LargeVariance(), Mixed(0.0), Mixed(0.5), Mixed(1.0)),
        *(EulerMaruyama(), EulerMaruyama(0.0), ReverseDiffusion()),
    ],
)
@every_schedule
@pytest.mark.parametrize(("s", "t"), [(0.0, 0.01), (0.3, 0.5), (0.9, 0.97)])
def test_without_blur_a_step_is_gaussian_corruptions(rule, schedule, s, t):
    spectral, gaussian = plain(schedule)
    x_t, x0, keys = images(3), Posterior(images(3, seed=1).clamp(-1, 1)), Keys(torch.arange(3), 2)
    found, expected = (rule.law(each, x_t, x0, time(s), time(t)) for each in (spectral, gaussian))
    scale = float(expected.mean.abs().max()) + 1  # an Euler step from the very end of Flow is a long one
    torch.testing.assert_close(found.mean, expected.mean, rtol=0, atol=1e-5 * scale)
    drawn = [law.sample(keys, 7) for law in (found, expected)]
    torch.testing.assert_close(*drawn, rtol=0, atol=1e-5 * scale)


# --------------------------------------------------------------------------------------------------- levels


@every_fading
@every_schedule
def test_nothing_has_happened_at_first(fading, schedule):
    spectral, x0 = Spectral(schedule, fading, SHAPE), images(2).double()
    torch.testing.assert_close(spectral.apply(x0, images(2, seed=1), time(0)), x0, rtol=0, atol=1e-13)


@every_fading
@every_schedule
def test_coefficients_fade_and_pixels_are_noised(fading, schedule):
    """x_t = alpha_t F_t(x0) + sigma_t eps: white noise is the same in every orthonormal basis."""
    spectral, x0, noise = Spectral(schedule, fading, SHAPE), images(3).double(), images(3, seed=1).double()
    for t in (time(0.3), torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64)):
        alpha, sigma = (level.reshape(-1, 1, 1, 1) for level in (schedule.alpha(t), schedule.sigma(t)))
        expected = alpha * fading.apply(x0, t) + sigma * noise
        torch.testing.assert_close(spectral.apply(x0, noise, t), expected)


@every_fading
@pytest.mark.parametrize("schedule", [VP(), Flow()], ids=["VP", "Flow"])
def test_rates_are_the_derivatives_of_levels(fading, schedule):
    spectral, h = Spectral(schedule, fading, SHAPE), 1e-6
    t = torch.tensor([0.11, 0.4, 0.9], dtype=torch.float64)
    level, after, before = (spectral.level(t + shift) for shift in (0.0, h, -h))
    assert level.alpha.shape == (3, 1, 8, 8)
    assert torch.equal(level.t.flatten(), t)
    assert torch.equal(level.alpha, spectral.alpha(t))
    assert torch.equal(level.sigma, spectral.sigma(t))
    slope = (after.alpha - before.alpha) / (2 * h)
    torch.testing.assert_close(level.alpha_rate, slope, rtol=1e-6, atol=1e-6)
    slope = (after.sigma - before.sigma) / (2 * h)
    torch.testing.assert_close(level.sigma_rate, slope, rtol=1e-6, atol=1e-6)


def test_times_and_what_is_told_of_them_are_the_schedules():
    for schedule in (Linear(steps=10), VP()):
        spectral, t = Spectral(schedule, FADINGS["heat"], SHAPE), torch.tensor([0.1, 1.0]).double()
        assert spectral.steps == schedule.steps
        assert torch.equal(spectral.conditioning(t), schedule.conditioning(t))
        torch.manual_seed(0)
        expected = schedule.draw_times(20, torch.device("cpu"))
        torch.manual_seed(0)
        assert torch.equal(spectral.draw_times(20, torch.device("cpu")), expected)


# ---------------------------------------------------------------------------------------------------- steps


@every_fading
@pytest.mark.parametrize(("s", "t"), [(0.05, 0.06), (0.2, 0.5), (0.4, 0.7)])
def test_eta_one_is_the_posterior_of_every_coefficient(fading, s, t):
    """Bayes' rule for u_s ~ N(a_s u_0, sigma_s^2), u_t ~ N(r u_s, sigma_t^2 - r^2 sigma_s^2), r = a_t / a_s:
    precisions add, and the mean is the weighted one (Hoogeboom & Salimans 2023, section 4)."""
    schedule = Cosine()
    spectral = Spectral(schedule, fading, SHAPE)
    to_basis = lambda x: torch.einsum("ip,jq,bcpq->bcij", matrix, matrix, x)
    matrix = fading.basis.matrix(8)
    x_t, x0 = images(2).double(), images(2, seed=1).double()
    a_s, a_t = (schedule.alpha(time(each)) * fading.gains(time(each), 8, 8)[0] for each in (s, t))
    sigma_s, sigma_t = schedule.sigma(time(s)), schedule.sigma(time(t))
    ratio = a_t / a_s
    onward = sigma_t**2 - ratio**2 * sigma_s**2
    variance = 1 / (1 / sigma_s**2 + ratio**2 / onward)
    mean = variance * (a_s * to_basis(x0) / sigma_s**2 + ratio * to_basis(x_t) / onward)
    found = Eta(1.0).law(spectral, x_t, Posterior(x0), time(s), time(t))
    torch.testing.assert_close(to_basis(found.mean), mean, rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(found.std.square().expand(1, 1, 8, 8)[0, 0], variance, rtol=1e-8, atol=1e-12)


@every_fading
@pytest.mark.parametrize("rule", [Eta(0.0), Mixed(0.0)])
def test_a_step_without_fresh_noise_stays_on_its_trajectory(fading, rule):
    spectral = Spectral(Cosine(), fading, SHAPE)
    x0, noise = images(2).double(), images(2, seed=1).double()
    x_t = spectral.apply(x0, noise, time(0.7))
    for s in (0.0, 0.3):
        found = rule.law(spectral, x_t, Posterior(x0), time(s), time(0.7)).sample(Keys(torch.arange(2), 0), 0)
        torch.testing.assert_close(found, spectral.apply(x0, noise, time(s)), rtol=0, atol=1e-9)


@every_fading
@pytest.mark.parametrize("rule", [Eta(0.3), Eta(1.0), Mixed(0.4), Mixed(1.0)])
def test_the_law_of_the_earlier_time_is_kept_in_every_coefficient(fading, rule):
    """Condition (*) of kexue.fm 9262: x_t ~ N(a_t u, sigma_t^2) becomes x_s ~ N(a_s u, sigma_s^2)."""
    spectral, x, (s, t) = Spectral(Cosine(), fading, SHAPE), images(1).double(), (time(0.3), time(0.6))
    law = rule.law(spectral, x, Posterior(x), s, t)
    on_x_t, on_x0 = law.coefficients
    torch.testing.assert_close(on_x_t * spectral.alpha(t) + on_x0, spectral.alpha(s))
    variance = (on_x_t * spectral.sigma(t)) ** 2 + law.std**2
    torch.testing.assert_close(variance, spectral.sigma(s).square().expand_as(variance))


@pytest.mark.parametrize("white", [True, False])
def test_drawn_noise_has_its_deviation_in_every_coefficient(white):
    """The covariance of 20,000 draws, in coefficients, is diag(std^2), within five standard errors; where all
    deviations are one it is that of the pixels too."""
    count, sides = 20_000, (3, 4)
    std = torch.ones(sides) if white else torch.linspace(0.2, 2, 12).reshape(sides)
    zero, one = torch.zeros(count, 1, *sides, dtype=torch.float64), torch.ones((), dtype=torch.float64)
    law = SpectralLaw(Cosines(), (one,), (zero,), std.double()[None, None])
    drawn = law.sample(Keys(torch.arange(count), 3), 1)
    variances = std.double().flatten().square()
    for values in [Cosines().forward(drawn), drawn] if white else [Cosines().forward(drawn)]:
        flat = values.flatten(1)
        expected = variances.diag()
        errors = ((variances[:, None] * variances + expected**2) / count).sqrt()
        assert ((flat.T @ flat / count - expected).abs() < 5 * errors).all()


def test_a_step_draws_noise_of_its_own():
    law = SpectralLaw(Cosines(), (time(1),), (torch.zeros(500, *SHAPE),), torch.ones(1, 1, 1, 1).double())
    keys = Keys(torch.arange(500), 3)
    first, second = law.sample(keys, 0), law.sample(keys, 1)
    assert torch.equal(first, law.sample(keys, 0))
    assert abs(float((first * second).mean())) < 5 / first.numel() ** 0.5


def test_where_nothing_is_added_no_noise_is_drawn():
    law = SpectralLaw(Cosines(), (time(0.5),), (images(2),), torch.zeros(1, 1, 1, 1).double())
    assert torch.equal(law.sample(None, 0), law.mean)


# ------------------------------------------------------------------------------------------------ estimates


@every_fading
@pytest.mark.parametrize(
    "parameterisation",
    [Epsilon(), X0(), V(), Score(), Velocity(), EDM()],
    ids=lambda parameterisation: type(parameterisation).__name__,
)
def test_the_target_of_every_parameterisation_recovers_the_image(fading, parameterisation):
    """In float64, away from coefficients that have faded by more than a thousand times."""
    spectral, estimator = Spectral(Cosine(), fading, SHAPE), Regression(parameterisation)
    x0, noise = images(3).double(), images(3, seed=1).double()
    for t in (time(0.5), torch.tensor([0.05, 0.4, 0.7], dtype=torch.float64)):
        assert spectral.alpha(t).min() > 1e-4
        x_t = spectral.apply(x0, noise, t)
        u, eps = spectral.coordinates(x0), spectral.coordinates(noise)
        output = spectral.image(parameterisation.target(u, eps, spectral.alpha(t), spectral.sigma(t)))
        found = estimator.posterior(output, x_t, t, spectral)
        torch.testing.assert_close(found.mean, x0, rtol=0, atol=1e-9)


def test_the_true_noise_recovers_the_image():
    """The output is noise in pixels (Hoogeboom & Salimans 2023, section 4)."""
    spectral, x0, noise = Spectral(Cosine(), FADINGS["heat"], SHAPE), images(3).double(), images(3, seed=1)
    t = torch.tensor([0.05, 0.4, 0.7], dtype=torch.float64)
    found = Regression(Epsilon()).posterior(
        noise.double(), spectral.apply(x0, noise.double(), t), t, spectral
    )
    torch.testing.assert_close(found.mean, x0, rtol=0, atol=1e-9)


def test_networks_see_unit_variance_under_edm():
    """c_in of Karras et al. (2022) holds coefficient by coefficient: 1 / (alpha sqrt(s^2 + d^2))."""
    spectral, x_t, t = Spectral(VP(), FADINGS["heat"], SHAPE), images(2).double(), time(0.4)
    alpha, sigma = spectral.alpha(t), spectral.sigma(t)
    expected = spectral.coordinates(x_t) / (alpha * ((sigma / alpha) ** 2 + 0.25).sqrt())
    seen = Regression(EDM()).seen(x_t, t, spectral)
    torch.testing.assert_close(spectral.coordinates(seen), expected)
    assert torch.equal(Regression(Epsilon()).seen(x_t, t, spectral), x_t)


def test_errors_in_the_noise_count_alike_in_coefficients_and_pixels():
    spectral, t = Spectral(Cosine(), FADINGS["heat"], SHAPE), torch.tensor([0.1, 0.5, 0.9]).double()
    x0, noise, output = images(3), images(3, seed=1), images(3, seed=2)
    trial = Trial(x0, noise, spectral.apply(x0, noise, t), t, output)
    expected = (output - noise).square().mean()
    torch.testing.assert_close(Regression(Epsilon()).loss(trial, spectral).total, expected)


def test_weights_are_of_each_coefficient():
    """The noise's error behind an error of x0 is alpha / sigma times as large, alpha being the wave's own."""
    spectral, t = Spectral(Cosine(), FADINGS["heat"], SHAPE), torch.tensor([0.1, 0.5, 0.9]).double()
    x0, noise, output = (images(3, seed=seed).double() for seed in range(3))
    trial = Trial(x0, noise, spectral.apply(x0, noise, t), t, output)
    errors = spectral.alpha(t) / spectral.sigma(t) * spectral.coordinates(output - x0)
    found = Regression(X0(), Noise()).loss(trial, spectral).total
    torch.testing.assert_close(found, errors.square().mean())


# ----------------------------------------------------------------------------------------------- a whole run


class Wiener:
    """The exact denoiser of white images, u ~ N(0, c^2) in every coefficient, under a spectral corruption."""

    image_shape = SHAPE

    def __init__(self, corruption, std=0.5):
        self.corruption, self.std = corruption, std

    def denoise(self, x_t, t, labels=None):
        alpha, sigma = self.corruption.alpha(t), self.corruption.sigma(t)
        gain = alpha * self.std**2 / (alpha**2 * self.std**2 + sigma**2)
        return Posterior(self.corruption.image(self.corruption.coordinates(x_t) * gain.to(x_t.dtype)))


@pytest.mark.parametrize("rule", [Eta(0.0), Eta(1.0), LargeVariance()])
def test_images_drawn_have_the_variance_of_each_coefficients_recursion(rule):
    """v_s = (k + c g)^2 v_t + std^2 for Gaussian data, within five standard errors of 3,000 channels."""
    spectral, steps, count = Spectral(Cosine(), FADINGS["heat"], SHAPE), 10, 1000
    model = Wiener(spectral)
    times = Uniform()(steps, spectral)
    expected = torch.ones(8, 8, dtype=torch.float64)
    for t, s in pairwise(times):
        kept, estimate, std = rule.coefficients(spectral.level(s), spectral.level(t), Posterior(times))
        alpha, sigma = spectral.alpha(t)[0, 0], spectral.sigma(t)[0, 0]
        gain = alpha * 0.25 / (alpha**2 * 0.25 + sigma**2)
        expected = (kept[0, 0] + estimate[0, 0] * gain) ** 2 * expected + std[0, 0] ** 2
    drawn = Restore(steps, Uniform(), rule, clip=False)(model, Keys(torch.arange(count), 0)).images
    found = spectral.coordinates(drawn.double()).square().mean(dim=(0, 1))
    assert ((found / expected - 1).abs() < 5 * (2 / (3 * count)) ** 0.5).all()


@pytest.mark.parametrize("batch", [1, 7, 20])
@pytest.mark.parametrize("rule", [Eta(0.0), Eta(1.0)])
def test_images_do_not_depend_on_their_batch(rule, batch):
    model = Wiener(Spectral(Cosine(), FADINGS["heat"], SHAPE))
    sampler, index = Restore(5, Uniform(), rule), torch.arange(20)
    apart = torch.cat([sampler(model, Keys(piece, 3)).images for piece in index.split(batch)])
    assert torch.equal(sampler(model, Keys(index, 3)).images, apart)
