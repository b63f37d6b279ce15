"""What outputs stand for, how their errors count, and the constants of EDM."""

from __future__ import annotations

import math

import pytest
import torch

from genbench.contracts import Batch, Step
from genbench.corruptions.continuous import EDM as EDMLevels
from genbench.corruptions.continuous import VE, VP, Flow, Geometric, SubVP
from genbench.corruptions.gaussian import Gaussian
from genbench.corruptions.schedules import Linear
from genbench.generators.denoising import Denoising
from genbench.generators.estimators import Regression
from genbench.generators.oracles import GaussianOracle
from genbench.generators.parameterisations import EDM, X0, Epsilon, Score, V, Velocity
from genbench.generators.weightings import Flat, Likelihood, Noise

KINDS = [Epsilon(), X0(), V(), Score(), Velocity(), EDM(0.5)]
PATHS = [Linear(), VP(), SubVP(), VE(0.02, 100.0), EDMLevels(), Flow(), Geometric(10, 0.02, 2.0)]
every_kind = pytest.mark.parametrize("kind", KINDS, ids=lambda k: type(k).__name__)
every_path = pytest.mark.parametrize("schedule", PATHS, ids=lambda s: type(s).__name__)


def drawn(schedule, count: int = 200):
    """(alpha, sigma, x0, noise, x_t) at times over the whole range, float64."""
    torch.manual_seed(0)
    corruption = Gaussian(schedule)
    t = torch.linspace(0.01, 0.99, count, dtype=torch.float64)
    x0, noise = torch.randn(2, count, 3, dtype=torch.float64)
    return corruption.alpha(t), corruption.sigma(t), x0, noise, corruption.apply(x0, noise, t)


@every_kind
@every_path
def test_reading_the_target_returns_the_image(kind, schedule):
    alpha, sigma, x0, noise, x_t = drawn(schedule)
    found = kind.x0(kind.target(x0, noise, alpha, sigma), x_t, alpha, sigma).tensor()
    torch.testing.assert_close(found, x0, atol=1e-9, rtol=1e-9)


@every_kind
@every_path
def test_an_error_of_the_output_is_this_error_of_the_noise(kind, schedule):
    """eps = (x_t - alpha x0) / sigma read off an output that is off by one, against `noise_error`."""
    alpha, sigma, x0, noise, x_t = drawn(schedule)
    off = kind.x0(kind.target(x0, noise, alpha, sigma) + 1, x_t, alpha, sigma).tensor()
    error = (alpha[:, None] * (off - x0) / sigma[:, None]).abs()
    torch.testing.assert_close(
        error, kind.noise_error(alpha, sigma)[:, None].expand_as(error), rtol=1e-6, atol=1e-9
    )


def test_conversions_between_all_kinds_agree():
    """The same posterior mean through every kind: noise, image, v, score, velocity and EDM's D."""
    alpha, sigma, _, _, x_t = drawn(VP())
    x0_hat = (
        GaussianOracle(Gaussian(VP()), (1, 1, 3))
        .denoise(x_t[:, None, None], torch.linspace(0.01, 0.99, 200, dtype=torch.float64))
        .mean[:, 0, 0]
    )
    eps_hat = (x_t - alpha[:, None] * x0_hat) / sigma[:, None]
    for kind in KINDS:
        output = kind.target(x0_hat, eps_hat, alpha, sigma)
        torch.testing.assert_close(kind.x0(output, x_t, alpha, sigma).tensor(), x0_hat, atol=1e-9, rtol=0)
    torch.testing.assert_close(Score().target(x0_hat, eps_hat, alpha, sigma), -eps_hat / sigma[:, None])


@every_path
def test_single_precision_converts_back_and_forth_at_every_time(schedule):
    """Output of one kind -> image and noise -> output of another -> and back: to 1e-5 of x_t's size, which is
    the unit of what float32 can tell (an error of x0 counts alpha in x_t, an error of the noise sigma)."""
    torch.manual_seed(0)
    corruption = Gaussian(schedule)
    t = torch.arange(1, 1001, dtype=torch.float64) / 1000
    t = t[corruption.alpha(t) > 0]  # where nothing is left of x0, no output but itself says what it was
    alpha, sigma = corruption.alpha(t), corruption.sigma(t)
    x0, noise = 2 * torch.rand(len(t), 8) - 1, torch.randn(len(t), 8)
    x_t = corruption.apply(x0, noise, t)
    size = x_t.abs().amax(1, keepdim=True).clamp(min=1)

    def read(kind, output):
        x0_hat = kind.x0(output, x_t, alpha, sigma).tensor()
        return x0_hat, ((x_t - alpha[:, None] * x0_hat) / sigma[:, None]).float()

    for one in KINDS:
        output = one.target(x0, noise, alpha, sigma)
        unit = (one.noise_error(alpha, sigma) * sigma)[:, None] / size
        for other in KINDS:
            converted = other.target(*read(one, output), alpha, sigma)
            back = one.target(*read(other, converted), alpha, sigma)
            assert back.dtype == torch.float32
            assert float(((back - output) * unit).abs().max()) < 1e-5, (one, other)


class Smooth(torch.nn.Module):
    """A noise prediction that is no oracle's, and depends on image and time."""

    def forward(self, x, time, labels=None):
        return torch.tanh(0.7 * x) + 0.2 * torch.sin(time / 100).reshape(-1, 1, 1, 1)


class AsEDM(torch.nn.Module):
    """F of a VP model: D(y; sigma) is its estimate at x_t = alpha y, where sigma_t / alpha_t = sigma."""

    def __init__(self, model: Denoising) -> None:
        super().__init__()
        self.model = model

    def forward(self, x, time, labels=None):
        schedule = self.model.corruption.schedule
        sigma = (4 * time.double()).exp()
        t = schedule.time_at(-sigma.log())
        y = x * (sigma**2 + 0.25).sqrt().float().reshape(-1, 1, 1, 1)
        x0_hat = self.model.denoise(schedule.alpha(t).float().reshape(-1, 1, 1, 1) * y, t).mean
        eps_hat = (y - x0_hat) / sigma.float().reshape(-1, 1, 1, 1)
        return EDM(0.5).target(x0_hat, eps_hat, torch.ones_like(sigma), sigma)


def test_a_vp_network_of_the_noise_is_an_edm_network_and_back():
    """The same estimate at y = x_t / alpha_t, and the noise read off it is the network's own output."""
    corruption, levels = Gaussian(VP()), Gaussian(EDMLevels())
    vp = Denoising(Smooth(), corruption, Regression(Epsilon()), (1, 4, 4))
    edm = Denoising(AsEDM(vp), levels, Regression(EDM(0.5)), (1, 4, 4))
    t = torch.linspace(0.01, 0.7, 30, dtype=torch.float64)
    alpha, sigma = (level(t).reshape(-1, 1, 1, 1) for level in (corruption.alpha, corruption.sigma))
    torch.manual_seed(0)
    x_t = torch.randn(30, 1, 4, 4)
    expected = vp.denoise(x_t, t).mean
    found = edm.denoise((x_t / alpha).float(), (sigma / alpha).reshape(-1) / 80).mean
    torch.testing.assert_close(alpha * found, alpha * expected, rtol=0, atol=1e-5)
    noise = (x_t - alpha * found) / sigma
    own = vp.network(x_t, corruption.schedule.conditioning(t))
    torch.testing.assert_close(sigma * noise, sigma * own, rtol=0, atol=1e-5)


def test_edms_loss_is_the_denoising_error_over_c_out_squared():
    """lambda |D - x0|^2 with lambda = (sigma^2 + d^2) / (sigma d)^2 = 1 / c_out^2 is |F - target|^2."""
    kind, sigma = EDM(0.5), torch.logspace(-2.5, 1.9, 9, dtype=torch.float64)
    alpha = torch.ones_like(sigma)
    x0, noise, wrong = torch.randn(3, 9, 5, dtype=torch.float64)
    output = kind.target(x0, noise, alpha, sigma) + wrong
    denoised = kind.x0(output, x0 + sigma[:, None] * noise, alpha, sigma).tensor()
    weight = (sigma**2 + 0.25) / (sigma * 0.5) ** 2
    torch.testing.assert_close(weight[:, None] * (denoised - x0) ** 2, wrong**2, rtol=1e-7, atol=1e-10)
    torch.testing.assert_close(weight * kind.coefficients(alpha, sigma)[1] ** 2, alpha)


def test_edms_constants_at_a_half():
    """Karras et al. 2022, table 1 at sigma = sigma_data = .5."""
    one, half = torch.ones((), dtype=torch.float64), torch.tensor(0.5, dtype=torch.float64)
    skip, out, scale = EDM(0.5).coefficients(one, half)
    assert (float(skip), float(out), float(scale)) == pytest.approx((0.5, 0.353553, 1.414214), abs=1e-6)
    noise = EDMLevels().conditioning(half / 80)
    assert float(noise) == pytest.approx(-0.173287, abs=1e-6)


@pytest.mark.parametrize("schedule", [EDMLevels(), VP(), Flow()], ids=lambda s: type(s).__name__)
def test_edm_sees_and_asks_for_unit_variance(schedule):
    """Var(c_in x) = Var(target) = 1 for data of the standard deviation it was told, at every noise level, and
    in any corruption."""
    torch.manual_seed(0)
    kind, corruption = EDM(0.5), Gaussian(schedule)
    for sigma in (0.01, 0.5, 20.0):
        t = schedule.time_at(-torch.tensor(sigma, dtype=torch.float64).log())
        x0, noise = 0.5 * torch.randn(200_000).double(), torch.randn(200_000).double()
        alpha, level = corruption.alpha(t), corruption.sigma(t)
        seen = kind.scale(alpha, level) * corruption.apply(x0, noise, t)
        wanted = kind.target(x0, noise, alpha, level)
        for values in (seen, wanted):
            assert abs(float(values.var()) - 1) < 5 * (2 / 200_000) ** 0.5


def test_edm_with_a_silent_network_is_the_best_linear_denoiser():
    kind, corruption = EDM(0.5), Gaussian(EDMLevels())
    x, t = torch.randn(6, 1, 2, 2).double(), torch.logspace(-4, 0, 6, dtype=torch.float64)
    silent = kind.x0(torch.zeros_like(x), x, corruption.alpha(t), corruption.sigma(t)).tensor()
    torch.testing.assert_close(silent, GaussianOracle(corruption, (1, 2, 2), std=0.5).denoise(x, t).mean)


@every_path
def test_weightings_are_the_score_losses_of_their_papers(schedule):
    """Noise: sigma^2 |score error|^2; likelihood: g^2 |score error|^2, whatever is predicted."""
    corruption = Gaussian(schedule)
    t = torch.linspace(0.05, 0.95, 7, dtype=torch.float64)
    level = corruption.level(t)
    score_error = {kind: kind.noise_error(level.alpha, level.sigma) / level.sigma for kind in KINDS}
    g2 = 2 * level.sigma * level.sigma_rate - 2 * level.alpha_rate / level.alpha * level.sigma**2
    for kind, error in score_error.items():
        torch.testing.assert_close(Noise()(level, kind), level.sigma**2 * error**2)
        torch.testing.assert_close(Likelihood()(level, kind), g2 * error**2)
        torch.testing.assert_close(Flat()(level, kind), torch.ones_like(t))


class Perfect(torch.nn.Module):
    """What the best score network says of N(0, c^2): -x / (c^2 + sigma^2), at a given noise level."""

    def __init__(self, c: float, sigma: float) -> None:
        super().__init__()
        self.gain = -1 / (c**2 + sigma**2)

    def forward(self, x, time, labels=None):
        return self.gain * x


def test_the_least_score_matching_loss_is_known():
    """Data N(0, c^2), one level: the noise-weighted loss of the best score is c^2 / (c^2 + sigma^2)."""
    torch.manual_seed(0)
    c, sigma = 0.7, 0.5
    corruption = Gaussian(Geometric(2, sigma, sigma * 1.0001))
    model = Denoising(Perfect(c, sigma), corruption, Regression(Score(), Noise()), (1, 8, 8))
    batch = Batch(c * torch.randn(4000, 1, 8, 8), None, torch.arange(4000))
    expected = c**2 / (c**2 + sigma**2)
    loss = float(model.loss(batch, Step(0, 1)).total)
    assert abs(loss - expected) < 5 * expected * math.sqrt(2 / batch.images.numel()) + 1e-4


def test_dequantised_training_moves_pixels_within_their_levels():
    """At almost no noise the network sees the dequantised images themselves."""
    torch.manual_seed(0)

    class Seen(torch.nn.Module):
        images: list[torch.Tensor]

        def forward(self, x, time, labels=None):
            self.images.append(x)
            return torch.zeros_like(x)

    network = Seen()
    network.images = []
    model = Denoising(
        network, Gaussian(Geometric(2, 1e-6, 2e-6)), Regression(Epsilon()), (1, 8, 8), levels=17
    )
    levels = torch.randint(0, 17, (500, 1, 8, 8)) / 8 - 1
    model.loss(Batch(levels, None, torch.arange(500)), Step(0, 1))
    moved = (network.images[0] - levels) * 8
    assert float(moved.abs().max()) <= 0.5 + 1e-4
    assert abs(float(moved.var()) - 1 / 12) < 5 * (1 / 12) * (0.8 / moved.numel()) ** 0.5 + 1e-4
