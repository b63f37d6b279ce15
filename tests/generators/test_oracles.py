"""Exact denoisers against the laws they are of: Tweedie's formula, its second order, scores, draws."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from genbench.contracts import UserError
from genbench.corruptions.continuous import EDM, VE, VP, Flow, Geometric, SubVP
from genbench.corruptions.gaussian import Gaussian
from genbench.corruptions.schedules import Cosine, Linear
from genbench.generators.oracles import DataOracle, GaussianOracle, MixtureOracle
from genbench.ops.random import Keys

SCHEDULES = [Linear(), Cosine(), VP(), SubVP(), VE(0.02, 100.0), EDM(), Flow(), Geometric(10, 0.02, 2.0)]
every_schedule = pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda schedule: type(schedule).__name__)
TIMES = torch.tensor([0.02, 0.1, 0.3, 0.6, 0.9], dtype=torch.float64)


def mixture(schedule) -> MixtureOracle:
    torch.manual_seed(0)
    means = torch.randn(3, 1, 1, 2).double()
    return MixtureOracle(Gaussian(schedule), means, [0.3, 0.5, 0.0], [1.0, 3.0, 2.0])


def log_density(model: MixtureOracle, x: Tensor, t: Tensor) -> Tensor:
    """log sum_k w_k N(x; a mu_k, (a^2 c_k^2 + s^2) I) by torch's distributions, [B]."""
    alpha, sigma = model.corruption.alpha(t)[:, None], model.corruption.sigma(t)[:, None]
    std = (alpha**2 * torch.tensor([0.3, 0.5, 0.0]).double() ** 2 + sigma**2).sqrt()
    law = torch.distributions.Normal(alpha[..., None] * model.data_means.flatten(1), std[..., None])
    weights = torch.tensor([1.0, 3.0, 2.0]).double() / 6
    return (weights.log() + law.log_prob(x.flatten(1)[:, None]).sum(-1)).logsumexp(dim=1)


def noisy(model: MixtureOracle) -> Tensor:
    """One image for each of TIMES, near the mass of its time."""
    torch.manual_seed(1)
    return model.corruption.apply(model.data_means[[0, 1, 2, 0, 1]], torch.randn(5, 1, 1, 2).double(), TIMES)


@every_schedule
def test_the_posterior_mean_is_tweedies(schedule):
    """E[x0 | x_t] = (x_t + sigma^2 grad log p_t(x_t)) / alpha, the gradient by autograd."""
    model = mixture(schedule)
    x = noisy(model).requires_grad_(True)
    (score,) = torch.autograd.grad(log_density(model, x, TIMES).sum(), x)
    alpha, sigma = (level(TIMES).reshape(5, 1, 1, 1) for level in (schedule.alpha, schedule.sigma))
    with torch.no_grad():
        expected = (x + sigma**2 * score) / alpha
        torch.testing.assert_close(model.denoise(x, TIMES).mean, expected, rtol=1e-8, atol=1e-10)


@every_schedule
def test_the_posterior_variance_is_the_slope_of_its_mean(schedule):
    """Var[x0 | x_t] = (sigma^2 / alpha) dE[x0 | x_t] / dx_t pixel by pixel, by autograd."""
    model = mixture(schedule)
    x = noisy(model).requires_grad_(True)
    found = model.denoise(x, TIMES)
    alpha, sigma = (level(TIMES).reshape(5, 1) for level in (schedule.alpha, schedule.sigma))
    for pixel in range(2):
        (slope,) = torch.autograd.grad(found.mean[..., pixel].sum(), x, retain_graph=True)
        expected = sigma**2 / alpha * slope.flatten(1)[:, pixel : pixel + 1]
        variance = found.variance.flatten(1)[:, pixel : pixel + 1]
        torch.testing.assert_close(variance, expected, rtol=1e-6, atol=1e-10)


@every_schedule
def test_a_data_set_is_averaged_by_likelihood_times_weight(schedule):
    """r_i proportional to w_i exp(-|x_t - a x_i|^2 / (2 s^2)); all w_i equal in a data set."""
    torch.manual_seed(2)
    images, weights = torch.randn(4, 1, 2, 2).double(), torch.tensor([1.0, 2.0, 3.0, 4.0])
    corruption = Gaussian(schedule)
    x = corruption.apply(images[[0, 1, 2, 3, 0]], torch.randn(5, 1, 2, 2).double(), TIMES)
    alpha, sigma = corruption.alpha(TIMES)[:, None], corruption.sigma(TIMES)[:, None]
    distances = torch.stack([(x - alpha[:, :, None, None] * y).flatten(1).square().sum(1) for y in images], 1)
    for model, w in (
        (MixtureOracle(corruption, images, torch.zeros(4), weights), weights),
        (DataOracle(corruption, images), torch.ones(4)),
    ):
        shares = (w.log() - distances / (2 * sigma**2)).softmax(dim=1)
        expected = (shares @ images.flatten(1)).reshape(x.shape)
        torch.testing.assert_close(model.denoise(x, TIMES).mean, expected, rtol=1e-7, atol=1e-12)


@every_schedule
def test_the_norm_of_a_gaussians_score_is_known(schedule):
    """E |s_t grad log p_t|^2 / D = s_t^2 / (a_t^2 c^2 + s_t^2): what weighting by s_t^2 makes of it, within
    five standard errors of 32,000 pixels."""
    c, mean = 0.6, 0.3
    model = GaussianOracle(Gaussian(schedule), (1, 8, 8), mean, c)
    torch.manual_seed(0)
    for t in TIMES:
        alpha, sigma = schedule.alpha(t), schedule.sigma(t)
        x0 = mean + c * torch.randn(500, 1, 8, 8).double()
        x_t = model.corruption.apply(x0, torch.randn_like(x0), t)
        scaled = (alpha * model.denoise(x_t, t).mean - x_t) / sigma  # s_t times the score
        expected = float(sigma**2 / (alpha**2 * c**2 + sigma**2))
        assert abs(float(scaled.square().mean()) / expected - 1) < 5 * (2 / scaled.numel()) ** 0.5


def test_draws_have_the_laws_moments():
    """Means, variances and weights within five standard errors of 20,000 images."""
    count = 20_000
    keys = Keys(torch.arange(count), 0)
    x = GaussianOracle(Gaussian(VP()), (1, 1, 2), 0.3, 0.6).sample(keys)
    assert abs(float(x.mean()) - 0.3) < 5 * 0.6 / x.numel() ** 0.5
    assert abs(float(x.var()) / 0.36 - 1) < 5 * (2 / x.numel()) ** 0.5
    model = MixtureOracle(
        Gaussian(VP()), [[[[-9.0]]], [[[0.0]]], [[[9.0]]]], [0.5, 0.0, 1.0], [1, 2, 5], [1, 1, 2]
    )
    x = model.sample(keys).flatten(1)
    nearest = (x.mean(1) / 9).round()
    for place, std, share in ((-1, 0.5, 1 / 8), (0, 0.0, 2 / 8), (1, 1.0, 5 / 8)):
        part = x[nearest == place]
        assert abs(len(part) / count - share) < 5 * (share * (1 - share) / count) ** 0.5
        assert abs(float(part.mean()) - 9 * place) <= 5 * std / part.numel() ** 0.5
        assert abs(float(part.std()) - std) <= 5 * std / (2 * part.numel()) ** 0.5


def test_mixtures_that_are_none_are_refused():
    corruption, means = Gaussian(VP()), torch.zeros(2, 1, 1, 1)
    for stds, weights in (([1.0], [1.0, 1.0]), ([1.0, 1.0], [1.0, 0.0]), ([1.0, 1.0], [1.0])):
        with pytest.raises(UserError, match="positive weights"):
            MixtureOracle(corruption, means, stds, weights)
