"""The variational bound of discrete-time diffusion, term by term."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from genbench.contracts import Batch, Posterior, Step, UserError
from genbench.corruptions.continuous import VP
from genbench.corruptions.gaussian import Gaussian
from genbench.corruptions.gaussian_rules import Eta, LargeVariance, LearnedVariance, Spread
from genbench.corruptions.schedules import Cosine, Linear
from genbench.generators.denoising import Denoising
from genbench.generators.estimators import Hybrid
from genbench.generators.oracles import DataOracle, GaussianOracle
from genbench.generators.parameterisations import Epsilon
from genbench.likelihood.bound import BoundLikelihood, gaussian_kl, level_log_likelihood, step_bits
from genbench.ops.combine import expand
from genbench.ops.random import Keys


def test_gaussian_kl_is_torchs():
    mean, std, other_mean, other_std = torch.rand(4, 20, dtype=torch.float64) + 0.1
    law = torch.distributions.Normal
    expected = torch.distributions.kl_divergence(law(mean, std), law(other_mean, other_std))
    torch.testing.assert_close(gaussian_kl(mean, std, other_mean, other_std), expected)


@pytest.mark.parametrize("levels", [17, 256])
@pytest.mark.parametrize("std", [0.003, 0.1, 3.0])
def test_levels_cut_out_of_a_gaussian_have_probabilities_that_sum_to_one(levels, std):
    x = (2 * torch.arange(levels, dtype=torch.float64) / (levels - 1) - 1).reshape(-1, 1)
    for mean in (-1.2, 0.013, 0.97):
        found = level_log_likelihood(x, torch.tensor(mean).double(), torch.tensor(std).double(), levels)
        assert float(found.exp().sum()) == pytest.approx(1, abs=1e-9)
        assert bool(found.isfinite().all())  # far tails too


def test_a_broad_model_gives_every_inner_level_the_same_bits():
    x = (2 * torch.arange(1, 16, dtype=torch.float64) / 16 - 1).reshape(-1, 1)
    std = torch.tensor(1000.0).double()
    found = level_log_likelihood(x, torch.zeros(()).double(), std, 17)
    expected = math.log(2 / 16) - math.log(1000 * math.sqrt(2 * math.pi))
    torch.testing.assert_close(found, torch.full_like(found, expected), atol=1e-6, rtol=0)


def test_the_bound_of_gaussian_data_is_its_entropy():
    """With the variance that covers the estimate's own, the reverse process of Gaussian data is exact for any
    T, and the bound over finely quantised draws is their density's own bits, within Monte-Carlo error; with
    the posterior's variance alone it lies above."""
    std = 0.25
    torch.manual_seed(0)
    images = ((std * torch.randn(2000, 1, 2, 2) + 1) * 127.5).round() / 127.5 - 1
    model = GaussianOracle(Gaussian(Linear(40, 1e-3, 0.4)), (1, 2, 2), std=std)
    density = 0.5 * (images / std).double().square() + math.log(std * math.sqrt(2 * math.pi))
    expected = density.flatten(1).mean(1) / math.log(2) + math.log2(127.5)
    keys = Keys(torch.arange(2000), 0)
    gap = BoundLikelihood(Spread(Eta(1.0), last=True))(model, images, 256, keys) - expected
    error = float(gap.std()) / 2000**0.5
    assert abs(float(gap.mean())) < 4 * error
    assert error < 0.02
    assert float((BoundLikelihood(Eta(1.0))(model, images, 256, keys) - expected).mean()) > 0.2


def test_a_data_set_known_by_heart_costs_its_own_number_of_bits():
    """Four images at V = 17: the exact denoiser's bound comes near log2(4) / D bits, from above."""
    torch.manual_seed(0)
    images = torch.randint(0, 17, (4, 1, 4, 4)) / 8 - 1
    model = DataOracle(Gaussian(Linear(200, 5e-4, 0.1)), images)
    found = BoundLikelihood(Eta(1.0))(model, images, 17, Keys(torch.arange(4), 0))
    assert 2 / 16 - 0.02 < float(found.mean()) < 2 / 16 + 0.05


def test_an_estimate_equal_to_the_data_costs_nothing_but_the_ends():
    corruption = Gaussian(Linear())
    x0 = torch.randint(0, 17, (999, 1, 2, 2)) / 8 - 1
    t = torch.arange(2, 1001, dtype=torch.float64) / 1000
    x_t = corruption.apply(x0, torch.randn_like(x0), t)
    bits = step_bits(corruption, x0, x_t, t, Posterior(x0), Eta(1.0), 17)
    assert float(bits.abs().max()) < 1e-9
    wide = step_bits(corruption, x0, x_t, t, Posterior(x0), LargeVariance(), 17)
    assert bool((wide > 0).all())


class SlightlyOff:
    """Answers 1.034 eps for the noise eps in x_t, where the image is grey everywhere: x0 = 0."""

    corruption = Gaussian(Cosine(1000))
    excess = 0.034

    def denoise(self, x_t, t, labels=None):
        return Posterior(-self.excess * x_t / expand(self.corruption.alpha(t), x_t))


def test_an_unclipped_estimate_pays_for_the_last_step_where_nothing_is_left_of_the_image():
    """A step whose beta is b costs d b / (2 (1 - b) sigma_s^2) nats, where d is eps's mean square error.

    The cosine schedule ends with 1 - b = 1/1000: .833 bits there for d = .034^2, .022 in all steps before.
    A clipped x0_hat is off by 1 at most, so that late steps cost nothing; early ones, whose error in x0 is
    small, cost what they did.
    """
    model = SlightlyOff()
    t = torch.arange(1, 1001, dtype=torch.float64) / 1000
    alpha, sigma = model.corruption.alpha(t), model.corruption.sigma(t)
    ratio = (alpha[:-1] / alpha[1:]).square()
    costs = model.excess**2 * (ratio - 1) / (2 * (1 - alpha[:-1].square())) / math.log(2)
    assert float(costs[-1]) == pytest.approx(0.833, abs=0.001)
    images, keys = torch.zeros(500, 1, 2, 2), Keys(torch.arange(500), 0)
    free = BoundLikelihood(Eta(1.0), clip=False)(model, images, 17, keys)
    held = BoundLikelihood(Eta(1.0))(model, images, 17, keys)
    assert float(free.mean()) == pytest.approx(float(costs.sum()), abs=4 * float(free.std()) / 500**0.5)
    small = 5 * model.excess * sigma[1:] / alpha[1:] < 1
    assert float(costs[small].sum()) < float(held.mean()) < float(costs[:-1].sum())


class Two(nn.Module):
    """A network of one weight for the mean's half of the channels and one for the variance's."""

    def __init__(self) -> None:
        super().__init__()
        self.mean, self.variance = nn.Parameter(torch.tensor(0.3)), nn.Parameter(torch.tensor(0.2))

    def forward(self, x, time, labels=None):
        return torch.cat([self.mean * x, self.variance * torch.tanh(x)], dim=1)


def improved(**kwargs) -> Denoising:
    estimator = Hybrid(Epsilon(), levels=17, **kwargs)
    return Denoising(Two(), Gaussian(Cosine(100)), estimator, (1, 4, 4))


def batch() -> Batch:
    torch.manual_seed(0)
    return Batch(torch.randint(0, 17, (64, 1, 4, 4)) / 8 - 1, None, torch.arange(64))


def test_the_bound_teaches_the_variance_and_not_the_mean():
    model = improved(simple=False)
    model.loss(batch(), Step(0, 1)).total.backward()
    assert model.network.mean.grad is None or float(model.network.mean.grad) == 0
    assert float(model.network.variance.grad.abs()) > 0


def test_the_hybrid_is_its_parts_in_their_weights():
    model = improved(bound_weight=0.25)
    losses = model.loss(batch(), Step(0, 1))
    expected = losses.parts["simple"] + 0.25 * losses.parts["bound"]
    torch.testing.assert_close(losses.total, expected)


def test_the_share_is_read_off_the_second_half():
    model = improved()
    x = torch.randn(3, 1, 4, 4)
    posterior = model.denoise(x, torch.tensor(0.5).double())
    torch.testing.assert_close(posterior.share, (0.2 * torch.tanh(x) + 1) / 2)
    law = LearnedVariance().law(
        model.corruption, x, posterior, torch.tensor(0.49).double(), torch.tensor(0.5).double()
    )
    assert law.std.shape == x.shape


def test_continuous_time_has_no_such_sum():
    with pytest.raises(UserError, match="discrete times"):
        BoundLikelihood(Eta(1.0)).check(GaussianOracle(Gaussian(VP()), (1, 2, 2)))
