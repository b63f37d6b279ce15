"""Draws of estimates: exact sampling in a handful of steps, and noise fitted after training."""

from __future__ import annotations

import math

import pytest
import torch

from genbench.contracts import Batch, Posterior, Rule, UserError
from genbench.corruptions.chains import Absorbing, CosineKeep, DiscretisedGaussian, LinearKeep, Uniform
from genbench.corruptions.continuous import VE, Flow
from genbench.corruptions.gaussian import Gaussian
from genbench.corruptions.gaussian_rules import Eta
from genbench.corruptions.masking import Counted, Independent, Mask
from genbench.corruptions.rules import Bridge, Mixed
from genbench.corruptions.schedules import Linear
from genbench.corruptions.tokens import expectation, tokens, values
from genbench.generators.oracles import GaussianOracle
from genbench.ops.combine import expand
from genbench.ops.random import Keys, Successive
from genbench.samplers.analytic import VARIANCES, Analytic
from genbench.samplers.draws import FACTORS, SCALES, Apart, Laplace, Mean, Normal, Together
from genbench.samplers.grids import Uniform as Even
from genbench.samplers.restore import Restore

WEIGHTS = torch.tensor([0.2, 0.5, 0.3])
POINTS = values(torch.arange(3), 3)
COUNT = 100_000


def named(each):
    """The same in every process, as an object's address is not."""
    return str(each) if isinstance(each, str | float | Rule) else type(each).__name__


class Exact:
    """The Bayes posterior of one pixel that is one of three levels, under any corruption."""

    image_shape = (1, 1, 1)
    classes = 0

    def __init__(self, corruption):
        self.corruption = corruption

    def denoise(self, x_t, t, labels=None):
        corruption = self.corruption
        if isinstance(corruption, Gaussian):
            means = expand(corruption.alpha(t), x_t[..., None]) * POINTS
            sigma = expand(corruption.sigma(t), x_t[..., None])
            evidence = -((x_t[..., None] - means) ** 2) / (2 * sigma**2)
        elif isinstance(corruption, Mask):
            hidden = ~corruption.known(x_t)
            same = torch.isclose(x_t[..., None], POINTS)
            evidence = torch.where(hidden[..., None] | same, 0.0, -1e4)
        else:
            evidence = corruption.column(tokens(x_t, 3), torch.zeros_like(t), t).clamp(min=1e-30).log()
        logits = WEIGHTS.log() + evidence
        return Posterior(expectation(logits), logits=logits)


FRESH, SAME, MIXED = Mixed(1.0), Mixed(0.0), Mixed(0.7)
CASES = [
    *(
        (name, Gaussian(schedule), rule, start)
        for name, schedule, start in (
            ("ddpm", Linear(), 1.0),
            ("ve", VE(0.02, 60.0), 1.0),
            ("flow", Flow(), 0.999),
        )
        for rule in (FRESH, SAME, MIXED, Eta(1.0))
    ),
    *(
        (name, corruption, rule, 1.0)
        for name, corruption in (
            ("uniform", Uniform(3, CosineKeep(), 100)),
            ("absorbing", Absorbing(3, LinearKeep(), 100)),
            ("wandering", DiscretisedGaussian(3, 100, 1e-2, 2.0)),
            ("mask", Mask(Counted())),
            ("independent", Mask(Independent())),
        )
        for rule in (FRESH, Bridge())
    ),
]


def sample(corruption, rule, draw, start=1.0, count=COUNT):
    sampler = Restore(5, Even(start), rule, clip=False, draw=draw)
    model = Exact(corruption)
    sampler.check(model)
    return sampler(model, Keys(torch.arange(count), 0)).images.flatten()


@pytest.mark.parametrize(("name", "corruption", "rule", "start"), CASES, ids=named)
def test_five_steps_are_exact_with_draws_from_the_posterior(name, corruption, rule, start):
    """kexue.fm 9262: for any T and any rule that keeps (*)."""
    found = torch.bincount(tokens(sample(corruption, rule, Apart(), start), 3), minlength=3) / COUNT
    error = (WEIGHTS * (1 - WEIGHTS) / COUNT).sqrt()
    assert ((found - WEIGHTS).abs() < 5 * error).all(), found


@pytest.mark.parametrize(
    "corruption", [Uniform(3, CosineKeep(), 100), DiscretisedGaussian(3, 100, 1e-2, 2.0)], ids=named
)
def test_a_bridge_that_averages_over_the_estimate_is_as_exact(corruption):
    found = torch.bincount(tokens(sample(corruption, Bridge(), Mean()), 3), minlength=3) / COUNT
    assert ((found - WEIGHTS).abs() < 5 * (WEIGHTS * (1 - WEIGHTS) / COUNT).sqrt()).all(), found


@pytest.mark.parametrize("schedule", [Linear(), Linear(100, 1e-3, 0.2)])
def test_means_lose_variance_in_few_steps(schedule):
    """With the posterior's mean and the deterministic rule; draws do not."""
    true = float(WEIGHTS @ POINTS**2 - (WEIGHTS @ POINTS) ** 2)
    assert float(sample(Gaussian(schedule), SAME, Mean()).var()) < 0.9 * true
    drawn = float(sample(Gaussian(schedule), SAME, Apart()).var())
    assert drawn == pytest.approx(true, rel=5 * 2 / math.sqrt(COUNT))


def test_temperature_sharpens_and_a_mean_alone_cannot_be_drawn_from():
    keys = Keys(torch.arange(2000), 0)
    estimate = Posterior(torch.zeros(2000, 1, 1, 1), logits=WEIGHTS.log().expand(2000, 1, 1, 1, 3))
    cold = Apart(0.1)(estimate, keys, 0, {}).mean
    assert (cold == POINTS[1]).float().mean() > 0.98
    known = Posterior(torch.ones(2000, 1, 1, 1), variance=torch.tensor(4.0))
    drawn = Apart(0.5)(known, keys, 0, {}).mean
    assert float(drawn.mean()) == pytest.approx(1.0, abs=5 / 2000**0.5)
    assert float(drawn.std()) == pytest.approx(1.0, abs=5 / 4000**0.5)
    with pytest.raises(UserError, match="draw=mean"):
        Apart().given(Posterior(torch.zeros(1, 1, 1, 1)))
    with pytest.raises(UserError, match="temperature"):
        Apart(0.0)


def batches(images, size=500):
    while True:
        for part in images.split(size):
            yield Batch(part, None, torch.arange(len(part)))


def test_fitted_scales_are_the_errors_of_an_exact_denoiser():
    """Mean squared errors are the posterior's variance, absolute ones sqrt(2 / pi) of its root."""
    oracle = GaussianOracle(Gaussian(Linear()), (1, 4, 4), std=0.5)
    images = oracle.sample(Keys(torch.arange(1000), 3)).float()
    times = torch.tensor([0.8, 0.3], dtype=torch.float64)
    known = torch.stack([oracle.denoise(images[:1], t).variance.double() for t in times]).flatten()
    for draw, expected in ((Normal(), known), (Laplace(), (2 * known / math.pi).sqrt())):
        fitted = draw.fit(oracle, times, batches(images), Successive(500, 1, torch.device("cpu")))[SCALES]
        torch.testing.assert_close(fitted, expected.double(), rtol=5 * 1.5 / 16000**0.5, atol=0)


@pytest.mark.parametrize(("draw", "moment"), [(Normal(), 2), (Laplace(), 1)])
def test_noise_has_the_fitted_scale_of_its_step(draw, moment):
    keys = Keys(torch.arange(4000), 0)
    estimate = Posterior(torch.full((4000, 1, 2, 2), 0.25))
    fitted = {SCALES: torch.tensor([0.0, 0.3], dtype=torch.float64)}
    torch.testing.assert_close(draw(estimate, keys, 0, fitted).mean, estimate.mean)
    noise = draw(estimate, keys, 1, fitted).mean - 0.25
    assert float(noise.mean()) == pytest.approx(0, abs=5 * 0.6 / 16000**0.5)
    assert float(noise.abs().pow(moment).mean()) == pytest.approx(0.3, rel=5 * 1.5 / 16000**0.5)
    with pytest.raises(ValueError, match="fit"):
        draw(estimate, keys, 1, {})


class Separate:
    """Knows the law of each of two pixels, and nothing of how they go together."""

    image_shape = (1, 1, 2)
    classes = 0
    corruption = Mask(Counted())

    def denoise(self, x_t, t, labels=None):
        logits = WEIGHTS.log().expand(*x_t.shape, 3)
        return Posterior(expectation(logits), logits=logits)


def together(images):
    times = torch.ones(1, dtype=torch.float64)
    draw = Together(len(images))
    fitted = draw.fit(Separate(), times, batches(images, 1000), Successive(1000, 1, torch.device("cpu")))
    estimate = Separate().denoise(torch.zeros(COUNT, 1, 1, 2), times[0])
    return fitted, draw(estimate, Keys(torch.arange(COUNT), 0), 0, fitted).mean.flatten(1)


def test_pixels_drawn_together_keep_their_laws_and_gain_their_dependence():
    levels = torch.multinomial(WEIGHTS, 20000, replacement=True, generator=torch.Generator().manual_seed(0))
    same = values(levels, 3)[:, None, None, None].expand(-1, 1, 1, 2)
    fitted, drawn = together(same)
    for pixel in drawn.T:
        found = torch.bincount(tokens(pixel, 3), minlength=3) / COUNT
        assert ((found - WEIGHTS).abs() < 5 * (WEIGHTS * (1 - WEIGHTS) / COUNT).sqrt()).all()
    equal = (drawn[:, 0] == drawn[:, 1]).float().mean()
    assert float(equal) > float(WEIGHTS.square().sum()) + 0.15  # what independent pixels have
    apart = values(torch.stack((levels, levels.roll(1)), dim=1), 3)[:, None, None, :]
    fitted, _ = together(apart)
    torch.testing.assert_close(fitted[FACTORS][0], torch.eye(2), atol=5 / 20000**0.5, rtol=0)


def test_drawing_together_needs_a_fit_grey_levels_and_small_images():
    keys = Keys(torch.arange(2), 0)
    estimate = Separate().denoise(torch.zeros(2, 1, 1, 2), torch.ones(()))
    with pytest.raises(ValueError, match="fit"):
        Together()(estimate, keys, 0, {})
    placeholder = Together().placeholder(Separate(), 1)
    assert Together()(estimate, keys, 0, placeholder).mean.shape == (2, 1, 1, 2)
    with pytest.raises(UserError, match="estimator=categorical"):
        Together()(Posterior(torch.zeros(2, 1, 1, 2)), keys, 0, placeholder)
    large = Exact(Mask(Counted()))
    large.image_shape = (3, 32, 32)
    with pytest.raises(UserError, match="draw=apart"):
        Restore(5, Even(), Bridge(), draw=Together()).check(large)


@pytest.mark.parametrize("draw", [Apart(), Normal(), Laplace()])
def test_an_image_does_not_depend_on_its_batch(draw):
    corruption = Gaussian(Linear())
    sampler = Restore(5, Even(), SAME, clip=False, draw=draw)
    fitted = {SCALES: torch.full((5,), 0.1, dtype=torch.float64)}
    whole = sampler(Exact(corruption), Keys(torch.arange(6), 0), None, fitted).images
    part = sampler(Exact(corruption), Keys(torch.arange(4, 6), 0), None, fitted).images
    torch.testing.assert_close(whole[4:], part, atol=1e-6, rtol=0)


def test_a_normal_draw_under_the_posteriors_step_is_analytic_dpm():
    """kexue.fm 9262: a unit-weight Gaussian head given its variance afterwards is Bao et al. (2022)."""
    oracle = GaussianOracle(Gaussian(Linear()), (1, 1, 1), mean=0.4, std=0.5)
    variance = torch.tensor([0.2, 0.16, 0.1, 0.05, 0.02], dtype=torch.float64)
    keys = Keys(torch.arange(COUNT), 0)
    drawn = Restore(5, Even(), Eta(1.0), clip=False, draw=Normal())(oracle, keys, None, {SCALES: variance})
    analytic = Analytic(5, Even(), Eta(1.0), clip=False, noisy_end=True)
    steps = analytic(oracle, keys, None, {VARIANCES: variance})
    for images in (drawn.images, steps.images):
        assert float(images.mean()) == pytest.approx(0.4, abs=5 * 0.6 / COUNT**0.5)
    ratio = float(drawn.images.var() / steps.images.var())
    assert ratio == pytest.approx(1.0, abs=5 * (4 / COUNT) ** 0.5)
    without = Restore(5, Even(), Eta(1.0), clip=False)(oracle, keys).images.var()
    assert abs(float(without / steps.images.var()) - 1) > 0.1
