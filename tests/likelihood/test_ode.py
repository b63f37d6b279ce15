"""Likelihoods of the probability-flow ODE, on data whose density is known."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from genbench.contracts import Generator, Posterior, UserError
from genbench.corruptions.continuous import EDM, VE, VP, Flow, SubVP
from genbench.corruptions.gaussian import Gaussian
from genbench.corruptions.schedules import Linear
from genbench.generators.oracles import GaussianOracle, MixtureOracle
from genbench.likelihood.dequantisation import bits_per_dim, dequantised
from genbench.likelihood.ode import ODELikelihood
from genbench.ops.random import Keys

C = 0.5
PATHS = [VP(), SubVP(), VE(0.002, 100.0), EDM(), Flow()]


def gaussian_log_density(x: Tensor, std: float) -> Tensor:
    return (-0.5 * (x.flatten(1) / std) ** 2 - math.log(std * math.sqrt(2 * math.pi))).sum(1)


@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize("schedule", PATHS, ids=lambda s: type(s).__name__)
def test_a_gaussians_likelihood_to_a_thousandth_of_a_nat(schedule, exact):
    """Its drift is linear with a diagonal Jacobian, so Hutchinson's estimate has no error either."""
    torch.manual_seed(0)
    x = C * torch.randn(4, 1, 2, 2, dtype=torch.float64)
    end = 0.999 if isinstance(schedule, Flow) else 1.0
    model = GaussianOracle(Gaussian(schedule), (1, 2, 2), std=C)
    found = ODELikelihood(1e-6, 1e-6, end=end, exact=exact).log_density(model, x, Keys(torch.arange(4), 0))
    assert float((found - gaussian_log_density(x, C)).abs().max()) / 4 < 1e-3


def test_a_discrete_schedule_has_an_ode_between_its_times():
    torch.manual_seed(0)
    x = C * torch.randn(4, 1, 2, 2, dtype=torch.float64)
    model = GaussianOracle(Gaussian(Linear()), (1, 2, 2), std=C)
    found = ODELikelihood(1e-5, 1e-5, start=1e-3).log_density(model, x, Keys(torch.arange(4), 0))
    # The data seen at t = 1/T has the noise of that time: variance a^2 c^2 + s^2.
    t = torch.tensor(1e-3, dtype=torch.float64)
    std = float((model.corruption.alpha(t) ** 2 * C**2 + model.corruption.sigma(t) ** 2).sqrt())
    assert float((found - gaussian_log_density(x, std)).abs().max()) / 4 < 1e-3


def mixture() -> MixtureOracle:
    torch.manual_seed(1)
    means = torch.randn(3, 1, 1, 2)
    return MixtureOracle(Gaussian(VP()), means, torch.tensor([0.3, 0.5, 0.4]), torch.tensor([0.2, 0.3, 0.5]))


def test_a_mixtures_likelihood_and_hutchinsons_mean():
    """Exact divergence gives the density; random probes scatter about it without bias. What is left at t = 1
    of means of size one, alpha(1) = .0066 of them, is what N(0, I) does not know: a hundredth of a nat."""
    model = mixture()
    x = torch.randn(3, 1, 1, 2, generator=torch.Generator().manual_seed(2)).double()
    away = (x.flatten(1)[:, None] - model.data_means.flatten(1)) / model.data_stds[:, None]
    log_parts = -0.5 * away.square().sum(-1) - 2 * (model.data_stds * math.sqrt(2 * math.pi)).log()
    expected = torch.logsumexp(model.log_weights + log_parts, dim=1)
    keys = Keys(torch.arange(3), 0)
    exact = ODELikelihood(1e-7, 1e-7, exact=True).log_density(model, x, keys)
    assert float((exact - expected).abs().max()) < 1e-2
    many = x.repeat_interleave(200, 0)
    draws = ODELikelihood(1e-4, 1e-4).log_density(model, many, Keys(torch.arange(600), 1)).reshape(3, 200)
    error = draws.std(dim=1) / 200**0.5
    assert bool(((draws.mean(1) - exact).abs() < 4 * error + 1e-3).all())
    assert float(error.max()) > 0  # there is something to average


def test_it_works_where_samplers_work():
    """Under inference mode, with weights that need gradients or do not."""

    class Half(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gain = nn.Parameter(torch.tensor(0.5))

    class Learned(Generator):
        image_shape = (1, 2, 2)
        corruption = Gaussian(VP())

        def __init__(self) -> None:
            super().__init__()
            self.scaled = Half()

        def phases(self):
            return []

        def denoise(self, x_t, t, labels=None):
            return Posterior(self.scaled.gain * x_t)

    model = Learned().requires_grad_(False)
    with torch.inference_mode():
        bits = ODELikelihood(1e-3, 1e-3)(model, torch.zeros(2, 1, 2, 2), 17, Keys(torch.arange(2), 0))
    assert bits.shape == (2,)
    assert bool(bits.isfinite().all())


def test_dequantised_pixels_fill_the_cells_of_their_levels():
    levels = torch.arange(17) / 8 - 1
    x = dequantised(levels.reshape(1, 1, 1, 17).expand(4000, 1, 1, 17), 17, Keys(torch.arange(4000), 0))
    assert bool(((x * 8 + 8).round() == torch.arange(17)).all())
    offsets = (x - levels) * 8
    assert abs(float(offsets.mean())) < 5 * (1 / 12 / offsets.numel()) ** 0.5
    assert float(offsets.min()) == pytest.approx(-0.5, abs=1e-3)
    assert float(offsets.max()) == pytest.approx(0.5, abs=1e-3)


def test_bits_of_known_densities():
    """The uniform density over the cells of V levels has log2 V bits; N(0, c^2) in published units of
    2 / 256 has its own nats plus 7, and log2(127.5 / 128) less in units of 2 / 255."""
    for levels in (2, 17, 256):
        width = 2 * levels / (levels - 1)
        bits = bits_per_dim(torch.tensor([-3 * math.log(width)]), 3, levels)
        assert float(bits) == pytest.approx(math.log2(levels))
    for std, expected in ((1.0, 9.0471), (0.5, 8.0471), (0.25, 7.0471)):
        nats = 0.5 * math.log(2 * math.pi * math.e * std**2)
        bits = float(bits_per_dim(torch.tensor([-nats], dtype=torch.float64), 1, 256))
        assert bits - math.log2(127.5) + 7 == pytest.approx(expected, abs=5e-5)


def test_models_without_an_ode_are_refused():
    with pytest.raises(UserError, match="Leave likelihood out"):
        ODELikelihood().check(nn.Identity())
