"""DDPM and DDIM on an analytic Gaussian: exact variances, order of convergence, determinism, counted NFE."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from types import SimpleNamespace

import pytest
import torch

from genbench.contracts import Denoises, Posterior, UserError
from genbench.corruptions.cold import Faded
from genbench.corruptions.fading import Heat, SineWidth
from genbench.corruptions.gaussian import Gaussian
from genbench.corruptions.gaussian_rules import Eta, LargeVariance
from genbench.corruptions.rules import Mixed
from genbench.corruptions.schedules import Linear
from genbench.generators.oracles import GaussianOracle
from genbench.ops.random import Keys
from genbench.samplers.counting import Counted
from genbench.samplers.grids import Quadratic, Uniform
from genbench.samplers.guidance import Estimate
from genbench.samplers.restore import Restore

SHAPE = (1, 4, 4)


def oracle(std: float = 0.5) -> GaussianOracle:
    return GaussianOracle(Gaussian(Linear()), SHAPE, std=std)


def linear_factor(model: GaussianOracle, sampler: Restore) -> tuple[float, float]:
    """(variance of the output, factor on x_T) by pushing unit variance through the steps: all is linear."""
    corruption, c2 = model.corruption, model.data_std**2
    variance, factor = torch.ones((), dtype=torch.float64), torch.ones((), dtype=torch.float64)
    for t, s in pairwise(sampler.grid(sampler.steps, corruption)):
        one = torch.ones(1, 1, 1, 1, dtype=torch.float64)
        found = sampler.rule.law(corruption, one, Posterior(one), s, t)
        gain = corruption.alpha(t) * c2 / (corruption.alpha(t) ** 2 * c2 + corruption.sigma(t) ** 2)
        slope = found.coefficients[0] + found.coefficients[1] * gain
        variance, factor = slope**2 * variance + found.std**2, factor * slope
    return float(variance), float(factor)


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        (Eta(0.0), {10: 0.139972, 50: 0.223199, 100: 0.236177, 1000: 0.248498}),
        (Eta(1.0), {10: 0.111064, 50: 0.197245, 100: 0.219264, 1000: 0.246125}),
        (LargeVariance(), {10: 0.346951, 50: 0.267526, 100: 0.258562, 1000: 0.250752}),
    ],
)
def test_exact_variances_for_gaussian_data(rule, expected):
    """Data N(0, 1/4), linear schedule: the variance the chain ends with, by its closed recursion."""
    for steps, value in expected.items():
        sampler = Restore(steps, Uniform(), rule, clip=False)
        assert abs(linear_factor(oracle(), sampler)[0] - value) < 5e-7


def test_variance_beta_is_exact_for_unit_data():
    for steps in (10, 50, 100, 1000):
        sampler = Restore(steps, Uniform(), LargeVariance(), clip=False)
        assert abs(linear_factor(oracle(1.0), sampler)[0] - 0.9999) < 5e-5


@pytest.mark.parametrize("rule", [Eta(0.0), Eta(1.0), LargeVariance()])
def test_drawn_images_have_the_recursions_variance(rule):
    """The sampler itself, against the recursion, within five standard errors of 64,000 pixels."""
    sampler = Restore(20, Uniform(), rule, clip=False)
    images = sampler(oracle(), Keys(torch.arange(4000), 0)).images
    expected = linear_factor(oracle(), sampler)[0]
    error = expected * (2 / images.numel()) ** 0.5
    assert abs(float(images.double().var()) - expected) < 5 * error
    assert abs(float(images.double().mean())) < 5 * (expected / images.numel()) ** 0.5


def test_ddim_converges_to_the_ode_at_first_order():
    """The probability-flow map of N(0, c^2) is a factor in closed form; DDIM's error halves with the step."""
    model = oracle()
    corruption = model.corruption
    ends = torch.tensor([1.0, 0.1], dtype=torch.float64)  # a fixed interval that ends at sigma > 0
    power = corruption.alpha(ends) ** 2 * model.data_std**2 + corruption.sigma(ends) ** 2
    exact = (power[1] / power[0]).sqrt()
    errors = []
    for steps in (50, 100, 200, 400):
        # Equal steps of sigma / alpha are the ones in which DDIM is Euler's method.
        ratio = torch.linspace(1, 0, steps + 1, dtype=torch.float64)
        times = _times_of_ratio(corruption, ends, ratio)
        factor = torch.ones(1, 1, 1, 1, dtype=torch.float64)
        for t, s in pairwise(times):
            factor = Eta(0.0).law(corruption, factor, model.denoise(factor, t), s, t).mean
        errors.append(abs(float(factor.squeeze() - exact)))
    orders = [torch.log2(torch.tensor(a / b)).item() for a, b in pairwise(errors)]
    assert all(0.85 < order < 1.15 for order in orders), orders


def _times_of_ratio(corruption, ends, fraction):
    """Times whose log(sigma / alpha) divides the interval evenly, by bisection."""
    level = lambda t: (corruption.sigma(t) / corruption.alpha(t)).log()
    goal = level(ends[1]) + fraction * (level(ends[0]) - level(ends[1]))
    low, high = torch.full_like(goal, 0.01), torch.ones_like(goal)
    for _ in range(60):
        middle = (low + high) / 2
        above = level(middle) > goal
        low, high = torch.where(above, low, middle), torch.where(above, middle, high)
    return (low + high) / 2


@pytest.mark.parametrize("batch", [1, 7, 64])
@pytest.mark.parametrize("rule", [Eta(0.0), LargeVariance()])
def test_images_do_not_depend_on_their_batch(batch, rule):
    sampler = Restore(10, Uniform(), rule)
    index = torch.arange(64)
    whole = sampler(oracle(), Keys(index, 3)).images
    apart = torch.cat([sampler(oracle(), Keys(piece, 3)).images for piece in index.split(batch)])
    assert torch.equal(whole, apart)


def test_evaluations_are_counted():
    for steps in (1, 5, 50):
        samples = Restore(steps, Quadratic(), Eta(0.0))(oracle(), Keys(torch.arange(3), 0))
        assert samples.nfe.tolist() == [steps] * 3


def test_clipping_keeps_the_estimate_in_range():
    model = GaussianOracle(Gaussian(Linear()), SHAPE, mean=3.0, std=0.1)
    clipped = Restore(10, Uniform(), Eta(0.0), clip=True)(model, Keys(torch.arange(2), 0)).images
    free = Restore(10, Uniform(), Eta(0.0), clip=False)(model, Keys(torch.arange(2), 0)).images
    assert torch.equal(clipped, torch.ones_like(clipped))
    assert float(free.mean()) > 2.5


class TwoClasses(GaussianOracle):
    """Class k has its mean at k; without a label the mean is -1."""

    classes = 2

    def denoise(self, x_t, t, labels=None):
        return Posterior(labels.float().reshape(-1, 1, 1, 1).expand_as(x_t).clone())


@pytest.mark.parametrize(("weight", "expected"), [(0.0, 1.0), (-1.0, -1.0), (2.0, 5.0)])
def test_guidance_extrapolates_from_the_unconditional_estimate(weight, expected):
    """x0 = (1 + w) x0(y) - w x0(no label): w = 0 is the conditional model, w = -1 the unconditional one."""
    model = TwoClasses(Gaussian(Linear()), SHAPE)
    sampler = Restore(4, Uniform(), Eta(0.0), clip=False, guidance=weight)
    samples = sampler(model, Keys(torch.arange(3), 0), torch.ones(3, dtype=torch.int64))
    assert torch.allclose(samples.images, torch.full_like(samples.images, expected))
    assert samples.nfe.tolist() == [4 if weight == 0 else 8] * 3


def test_guidance_without_classes_is_refused():
    with pytest.raises(UserError, match="conditional"):
        Restore(4, Uniform(), Eta(0.0), guidance=1.0).check(oracle())


def test_too_many_steps_are_refused():
    with pytest.raises(UserError, match=r"sampler\.steps=1000"):
        Restore(1001, Uniform(), Eta(0.0)).check(oracle())


def test_the_oracle_denoises():
    assert isinstance(oracle(), Denoises)


def test_guidance_keeps_what_else_the_posterior_knows():
    """A learned share, or a variance, belongs to the step that follows, guided or not."""

    class Sharing(GaussianOracle):
        classes = 3

        def denoise(self, x_t, t, labels=None):
            known = super().denoise(x_t, t)
            shifted = known.mean + labels.reshape(-1, 1, 1, 1)
            return replace(known, estimate=shifted, share=torch.ones_like(x_t))

    model = Sharing(Gaussian(Linear()), SHAPE)
    x, t, labels = torch.zeros(2, *SHAPE), torch.tensor(0.5).double(), torch.tensor([0, 2])
    guided = Estimate(clip=False, guidance=1.0)(Counted(model, 2), x, t, labels)
    torch.testing.assert_close(guided.mean[:, 0, 0, 0], torch.tensor([1.0, 5.0]))  # 2 y - (-1)
    assert guided.share is not None
    assert guided.variance is not None


def test_what_is_known_at_the_end_of_time_is_not_started_from_earlier():
    model = SimpleNamespace(corruption=Faded(Heat(SineWidth(3.0))), image_shape=SHAPE)
    model.denoise = lambda x_t, t, labels=None: Posterior(x_t)
    Restore(10, Uniform(), Mixed()).check(model)
    for grid in (Quadratic(), Uniform(start=0.5)):
        with pytest.raises(UserError, match="grid=uniform"):
            Restore(10, grid, Mixed()).check(model)
    Restore(10, Quadratic(), Mixed()).check(oracle())
