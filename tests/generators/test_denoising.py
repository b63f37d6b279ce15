"""The denoising loss and its parameterisations in closed form."""

from __future__ import annotations

import pytest
import torch
from quadratics import NOW, Quadratic, gaussian, vertex
from torch import nn

from genbench.contracts import Batch, Step
from genbench.corruptions.cold import Faded
from genbench.corruptions.continuous import Geometric
from genbench.corruptions.fading import Heat, SineWidth
from genbench.corruptions.gaussian import Gaussian
from genbench.corruptions.schedules import Cosine, Linear
from genbench.corruptions.spectral import Spectral
from genbench.generators.denoising import Denoising
from genbench.generators.denoising_density import DDE
from genbench.generators.energies import MDSM, LinearLevels
from genbench.generators.estimators import Regression, Restoration
from genbench.generators.oracles import GaussianOracle
from genbench.generators.parameterisations import X0, Epsilon, Score, V
from genbench.generators.weightings import Noise

PARAMETERISATIONS = [Epsilon(), X0(), V()]


def batch(count: int = 512, std: float = 1.0) -> Batch:
    torch.manual_seed(0)
    return Batch(
        std * torch.randn(count, 1, 4, 4), torch.zeros(count, dtype=torch.int64), torch.arange(count)
    )


class Zero(nn.Module):
    """A network at its zero-initialised start."""

    def forward(self, x, time, labels=None):
        return torch.zeros_like(x)


class Optimal(nn.Module):
    """The network whose reading by a parameterisation is the exact posterior mean for N(0, std^2) data."""

    def __init__(self, parameterisation, corruption, std):
        super().__init__()
        self.parameterisation, self.corruption = parameterisation, corruption
        self.oracle = GaussianOracle(corruption, (1, 4, 4), std=std)

    def forward(self, x, time, labels=None):
        t = (time.double() + 1) / self.corruption.steps
        alpha, sigma = (v.reshape(-1, 1, 1, 1) for v in (self.corruption.alpha(t), self.corruption.sigma(t)))
        power = alpha**2 * self.oracle.data_std**2 + sigma**2
        x0 = alpha * self.oracle.data_std**2 / power * x
        eps = (x - alpha * x0) / sigma
        return self.parameterisation.target(x0, eps, alpha.reshape(-1), sigma.reshape(-1)).to(x.dtype)


def test_an_untrained_network_has_loss_one_per_dimension():
    """Predicting zero noise costs E[eps^2] = 1, within five standard errors."""
    model = Denoising(Zero(), Gaussian(Linear()), Regression(Epsilon()), (1, 4, 4))
    images = batch(4000)
    loss = float(model.loss(images, Step(0, 1)).total)
    assert abs(loss - 1) < 5 * (2 / images.images.numel()) ** 0.5


@pytest.mark.parametrize("parameterisation", PARAMETERISATIONS, ids=lambda p: type(p).__name__)
@pytest.mark.parametrize("schedule", [Linear(), Cosine()], ids=["linear", "cosine"])
def test_reading_x0_off_the_target_returns_x0(parameterisation, schedule):
    """Round trip x0 -> target -> x0 in float64 at every time."""
    corruption = Gaussian(schedule)
    t = torch.arange(1, 1001, dtype=torch.float64) / 1000
    x0, noise = torch.randn(1000, 2, dtype=torch.float64), torch.randn(1000, 2, dtype=torch.float64)
    alpha, sigma = corruption.alpha(t), corruption.sigma(t)
    x_t = corruption.apply(x0, noise, t)
    target = parameterisation.target(x0, noise, alpha, sigma)
    found = parameterisation.x0(target, x_t, alpha, sigma).tensor()
    # Dividing by alpha, which is 1e-5 at the end of the cosine schedule, costs that many digits.
    assert torch.allclose(found, x0, atol=1e-10, rtol=0)


@pytest.mark.parametrize("parameterisation", PARAMETERISATIONS, ids=lambda p: type(p).__name__)
def test_an_optimal_network_denoises_as_the_oracle_does(parameterisation):
    corruption = Gaussian(Linear())
    model = Denoising(
        Optimal(parameterisation, corruption, 0.5), corruption, Regression(parameterisation), (1, 4, 4)
    )
    oracle = GaussianOracle(corruption, (1, 4, 4), std=0.5)
    x_t = torch.randn(8, 1, 4, 4, dtype=torch.float64)
    for index in (1, 250, 1000):
        t = torch.tensor(index / 1000, dtype=torch.float64)
        assert torch.allclose(model.denoise(x_t, t).mean, oracle.denoise(x_t, t).mean, atol=1e-9, rtol=0)


def test_the_optimal_loss_is_the_one_theory_gives():
    """For N(0, c^2) data the noise-prediction loss at t is a^2 c^2 / (a^2 c^2 + s^2), averaged over t."""
    corruption, std = Gaussian(Linear()), 0.5
    model = Denoising(Optimal(Epsilon(), corruption, std), corruption, Regression(Epsilon()), (1, 4, 4))
    t = torch.arange(1, 1001, dtype=torch.float64) / 1000
    signal = corruption.alpha(t) ** 2 * std**2
    each = signal / (signal + corruption.sigma(t) ** 2)
    found = torch.stack([model.loss(batch(4000, std), Step(0, 1)).total for _ in range(4)]).mean()
    # Spread: the t of 16,000 images are drawn, each with 16 squared errors.
    assert (
        abs(float(found - each.mean())) < 5 * float((each.var() + 2 * (each**2).mean() / 16) / 16_000) ** 0.5
    )


def test_losses_in_different_parameterisations_differ_by_known_factors():
    """|eps - eps_hat|^2 = (a / s)^2 |x0 - x0_hat|^2 for the same estimate."""
    corruption = Gaussian(Linear())
    t = torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64)
    x0, noise = torch.randn(3, 4, dtype=torch.float64), torch.randn(3, 4, dtype=torch.float64)
    x_t, estimate = corruption.apply(x0, noise, t), torch.randn(3, 4, dtype=torch.float64)
    alpha, sigma = corruption.alpha(t)[:, None], corruption.sigma(t)[:, None]
    eps = (x_t - alpha * estimate) / sigma
    left = (noise - eps) ** 2
    assert torch.allclose(left, (alpha / sigma) ** 2 * (x0 - estimate) ** 2, rtol=1e-9, atol=1e-9)


class Slope(nn.Module):
    """k x, whatever the time."""

    def __init__(self) -> None:
        super().__init__()
        self.k = nn.Parameter(torch.zeros(()))

    def forward(self, x, time, labels=None):
        return self.k * x


def test_denoiser_score_and_density_have_one_optimum():
    """Data N(0, c^2), one level: (r(x) - x) / sigma^2 of the best denoiser, the best score, and the gradients
    of the best log-density and energy are all -x / (c^2 + sigma^2). A regression of 400,000 pixels finds it
    with the relative error (c / sigma) / sqrt(400,000)."""
    c, sigma, shape = 0.8, 0.5, (1, 10, 10)
    torch.manual_seed(0)
    data = gaussian(4000, c, shape=shape)
    corruption = Gaussian(Geometric(2, sigma, sigma * (1 + 1e-6)))
    denoiser, score, density, energy = Slope(), Slope(), Quadratic(0.0), Quadratic(0.0)
    losses = {
        denoiser: Denoising(denoiser, corruption, Regression(X0()), shape).loss,
        score: Denoising(score, corruption, Regression(Score(), Noise()), shape).loss,
        density: DDE(density, Quadratic(0.0), Slope(), sigma, shape, 1).real_loss,
        energy: MDSM(energy, LinearLevels(sigma, sigma), sigma, shape).loss,
    }
    best = {part: vertex(lambda loss=loss: loss(data, NOW), part.k)[0] for part, loss in losses.items()}
    tolerance = 5 * (c / sigma) / data.images.numel() ** 0.5
    for found in ((best[denoiser] - 1) / sigma**2, best[score], best[density], -best[energy]):
        assert abs(found * -(c**2 + sigma**2) - 1) < tolerance


class Recording(nn.Module):
    def forward(self, x, time, labels=None):
        self.labels, self.time = labels, time
        return torch.zeros_like(x)


def test_labels_are_dropped_at_the_stated_rate():
    network = Recording()
    model = Denoising(
        network, Gaussian(Linear()), Regression(Epsilon()), (1, 4, 4), classes=10, label_dropout=0.25
    )
    model.loss(batch(20_000), Step(0, 1))
    rate = (network.labels == -1).double().mean()
    assert abs(float(rate) - 0.25) < 5 * (0.25 * 0.75 / 20_000) ** 0.5
    assert set(network.labels.unique().tolist()) == {-1, 0}


def test_an_unconditional_model_never_sees_labels():
    network = Recording()
    model = Denoising(network, Gaussian(Linear()), Regression(Epsilon()), (1, 4, 4))
    model.loss(batch(), Step(0, 1))
    assert network.labels is None
    assert float(network.time.min()) >= 0
    assert float(network.time.max()) <= 999


@pytest.mark.parametrize(
    "corruption",
    [
        Faded(Heat(SineWidth(3.0)), noise=0.02),
        Spectral(Linear(), Heat(SineWidth(3.0)), (1, 4, 4)),
        Gaussian(Linear()),
    ],
)
def test_autocast_is_for_the_network_alone(corruption):
    """In bfloat16 a blur's matrix products would be off by half of the noise that is added to it."""

    class Sees(Zero):
        def forward(self, x, time, labels=None):
            self.dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else x.dtype
            self.x = x
            return torch.zeros_like(x, dtype=self.dtype)

    regression = (
        Regression(Epsilon()) if corruption.invertible_in_noise and corruption.steps else Restoration()
    )
    model = Denoising(Sees(), corruption, regression, (1, 4, 4))
    seen, losses = [], []
    for narrow in (False, True):
        torch.manual_seed(0)
        with torch.autocast("cpu", torch.bfloat16, enabled=narrow):
            losses.append(model.loss(batch(), Step(0, 1)).total)
        seen.append(model.network.x)
        assert model.network.dtype == (torch.bfloat16 if narrow else torch.float32)
    assert torch.equal(*seen)
    assert torch.equal(*losses)
