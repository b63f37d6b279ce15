"""The reverse-time family, correctors and annealed Langevin dynamics, on laws known in closed form."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from genbench.contracts import Batch, Posterior, UserError
from genbench.corruptions.continuous import EDM, VE, VP, Flow, Geometric, SubVP
from genbench.corruptions.gaussian import Gaussian
from genbench.corruptions.gaussian_rules import Eta, EulerMaruyama, LearnedVariance, ReverseDiffusion, Spread
from genbench.corruptions.schedules import Cosine, Linear
from genbench.generators.oracles import DataOracle, GaussianOracle, MixtureOracle
from genbench.ops.random import Ambient, Keys, Stream
from genbench.samplers.analytic import VARIANCES, Analytic
from genbench.samplers.annealed_langevin import AnnealedLangevin
from genbench.samplers.correctors import Langevin
from genbench.samplers.counting import Counted
from genbench.samplers.grids import Quadratic, Rho, Uniform
from genbench.samplers.guidance import Estimate
from genbench.samplers.iterative import Path
from genbench.samplers.ode import Heun
from genbench.samplers.restore import Restore

C = 0.5
CPU = torch.device("cpu")


def variance_of(rule, schedule, times: Tensor, variance: float) -> list[float]:
    """The exact variance after every step on data N(0, C^2), all being linear."""
    corruption = Gaussian(schedule)
    one = torch.ones(1, 1, 1, 1, dtype=torch.float64)
    found = [variance]
    for t, s in pairwise(times):
        alpha, sigma = corruption.alpha(t), corruption.sigma(t)
        power = alpha**2 * C**2 + sigma**2
        posterior = Posterior(one, variance=C**2 * sigma**2 / power)
        law = rule.law(corruption, one, posterior, s, t)
        slope = law.coefficients[0] + law.coefficients[1] * alpha * C**2 / power
        found.append(float(slope**2 * found[-1] + law.std**2))
    return found


RULES = [EulerMaruyama(0.0), EulerMaruyama(1.0), EulerMaruyama(2.0), ReverseDiffusion(), Eta(1.0), Eta(0.5)]
PATHS = [VP(), SubVP(), VE(0.1, 10.0), EDM(), Flow()]


@pytest.mark.parametrize("rule", RULES, ids=str)
@pytest.mark.parametrize("schedule", PATHS, ids=lambda s: type(s).__name__)
def test_every_member_of_the_family_has_the_same_marginals_in_the_limit(rule, schedule):
    """From the exact law at t = .9 to .1: the variance is a_t^2 c^2 + s_t^2 there, with an error that falls
    in proportion to the step."""
    ends = torch.tensor([0.9, 0.1], dtype=torch.float64)
    power = (schedule.alpha(ends) ** 2 * C**2 + schedule.sigma(ends) ** 2).tolist()
    errors = []
    for steps in (500, 1000):
        times = torch.linspace(0.9, 0.1, steps + 1, dtype=torch.float64)
        errors.append(variance_of(rule, schedule, times, power[0])[-1] / power[1] - 1)
    assert abs(errors[1]) < 0.05
    assert errors[0] / errors[1] == pytest.approx(2, abs=0.1)


@pytest.mark.parametrize("schedule", [Linear(), *PATHS], ids=lambda s: type(s).__name__)
def test_reverse_diffusion_of_a_discrete_schedule_is_songs(schedule):
    """Eq. 46 at VP: (2 - sqrt(1 - beta)) x + beta score + sqrt(beta) z."""
    corruption = Gaussian(schedule)
    s, t = torch.tensor([0.3, 0.301], dtype=torch.float64)
    x, x0 = torch.full((1, 1, 1, 1), 0.7).double(), torch.full((1, 1, 1, 1), 0.2).double()
    law = ReverseDiffusion().law(corruption, x, Posterior(x0), s, t)
    ratio = corruption.alpha(t) / corruption.alpha(s)
    square = corruption.sigma(t) ** 2 - ratio**2 * corruption.sigma(s) ** 2
    score = (corruption.alpha(t) * x0 - x) / corruption.sigma(t) ** 2
    torch.testing.assert_close(law.mean, (2 - ratio) * x + square * score)
    torch.testing.assert_close(law.std, square.sqrt())
    if isinstance(schedule, Linear):
        torch.testing.assert_close(square, 1 - ratio**2)


def mixture(schedule, side: int = 2) -> MixtureOracle:
    means = torch.tensor([-1.0, 1.0]).reshape(2, 1, 1, 1).expand(2, 1, side, side)
    return MixtureOracle(Gaussian(schedule), means, torch.tensor([0.3, 0.2]), torch.tensor([0.2, 0.8]))


@pytest.mark.parametrize(
    "sampler",
    [
        Restore(400, Uniform(), EulerMaruyama(0.0), clip=False),
        Restore(400, Uniform(), EulerMaruyama(1.0), clip=False),
        Restore(400, Uniform(), EulerMaruyama(2.0), clip=False),
        Restore(400, Uniform(), ReverseDiffusion(), clip=False),
        Restore(400, Uniform(), Eta(1.0), clip=False),
        Heun(40, Rho()),
    ],
    ids=["ode", "sde", "twice", "reverse_diffusion", "ancestral", "heun"],
)
def test_a_mixture_comes_out_with_its_weights_and_spreads(sampler):
    """Weights .2 and .8, deviations .3 and .2; Monte-Carlo error of 4,000 images of four pixels, and two per
    cent for the steps."""
    check_mixture(sampler(mixture(VP()), Keys(torch.arange(4000), 0)).images)


def test_the_predictor_corrector_keeps_a_mixture():
    """In 64 dimensions: the corrector's step follows norms of single draws, which in few vary wildly."""
    sampler = Restore(200, Uniform(), ReverseDiffusion(), clip=False, corrector=Langevin(1, 0.16))
    samples = sampler(mixture(VP(), side=8), Keys(torch.arange(2000), 0))
    assert samples.nfe.unique().tolist() == [400] == [sampler.evaluations()]
    check_mixture(samples.images)


def check_mixture(images: Tensor) -> None:
    images = images.double().flatten(1)
    high = images.mean(1) > 0
    share = float(high.double().mean())
    assert abs(share - 0.8) < 4 * math.sqrt(0.16 / len(images)) + 0.01
    for part, mean, std in ((images[~high], -1, 0.3), (images[high], 1, 0.2)):
        assert abs(float(part.mean()) - mean) < 5 * std / math.sqrt(part.numel()) + 0.01
        assert abs(float(part.std()) / std - 1) < 5 / math.sqrt(2 * part.numel()) + 0.02


def test_a_finite_data_set_is_drawn_evenly():
    torch.manual_seed(0)
    data = torch.rand(4, 1, 3, 3) * 2 - 1
    images = Heun(30, Rho(80.0, 0.002))(DataOracle(Gaussian(EDM()), data), Keys(torch.arange(2000), 0)).images
    distances = torch.cdist(images.flatten(1), data.flatten(1))
    assert float(distances.min(dim=1).values.max()) < 1e-3
    counts = distances.argmin(dim=1).bincount(minlength=4)
    assert float(((counts - 500) ** 2 / 500).sum()) < 20  # chi-square with three degrees of freedom


def test_the_oracle_of_two_points_is_a_hyperbolic_tangent():
    x = torch.linspace(-2, 2, 9, dtype=torch.float64).reshape(-1, 1, 1, 1)
    oracle = DataOracle(Gaussian(EDM()), torch.tensor([-1.0, 1.0]).reshape(2, 1, 1, 1))
    sigma = 0.7
    posterior = oracle.denoise(x, torch.tensor(sigma / 80).double())
    torch.testing.assert_close(posterior.mean, torch.tanh(x / sigma**2))
    torch.testing.assert_close(posterior.variance, 1 - torch.tanh(x / sigma**2) ** 2)


@pytest.mark.parametrize("schedule", [VP(), EDM(), Flow()], ids=lambda s: type(s).__name__)
def test_a_mixture_of_one_is_the_gaussian_oracle(schedule):
    torch.manual_seed(0)
    corruption = Gaussian(schedule)
    one = MixtureOracle(corruption, torch.full((1, 1, 2, 2), 0.4), torch.tensor([0.6]), torch.ones(1))
    x, t = torch.randn(5, 1, 2, 2).double(), torch.linspace(0.1, 0.9, 5).double()
    ours, theirs = one.denoise(x, t), GaussianOracle(corruption, (1, 2, 2), 0.4, 0.6).denoise(x, t)
    torch.testing.assert_close(ours.mean, theirs.mean)
    torch.testing.assert_close(ours.variance, theirs.variance.expand_as(ours.variance))


def path_of(model, count: int) -> Path:
    keys = Keys(torch.arange(count), 5)
    return Path(Counted(model, count), model.corruption, Estimate(False), keys, None, {})


def test_the_corrector_leaves_the_law_at_its_time_alone():
    """Many corrections of draws from N(0, a^2 c^2 + s^2): the variance moves by Langevin's own bias alone,
    v / (1 - h / (4 v)) with h = 2 e, here e = 2 r^2 v to first order in 1 / D."""
    corruption, t = Gaussian(VP()), torch.tensor(0.5, dtype=torch.float64)
    model = GaussianOracle(corruption, (1, 16, 16), std=C)
    v = float(corruption.alpha(t) ** 2 * C**2 + corruption.sigma(t) ** 2)
    x = torch.randn(400, 1, 16, 16, generator=torch.Generator().manual_seed(0)) * v**0.5
    x = Langevin(60, 0.16)(x, t, t, 0, path_of(model, 400))
    expected = v / (1 - 4 * 0.16**2 * v / (4 * v))
    assert abs(float(x.double().var()) / expected - 1) < 5 * (2 / x.numel()) ** 0.5 + 0.005
    assert expected / v > 1.02  # the bias is there to be seen


def test_a_correction_is_the_published_one():
    """x + e score + sqrt(2 e) z with e = 2 a (r |z| / |score|)^2 and a = (alpha_t / alpha_s)^2, by hand."""
    model, t = GaussianOracle(Gaussian(VP()), (1, 4, 4), std=C), torch.tensor(0.5, dtype=torch.float64)
    s, x = torch.tensor(0.4, dtype=torch.float64), torch.randn(3, 1, 4, 4).double()
    corruption = model.corruption
    power = corruption.alpha(t) ** 2 * C**2 + corruption.sigma(t) ** 2
    score = -x / power
    noise = Keys(torch.arange(3), 5).normal((1, 4, 4), 7, Stream.CORRECTOR).double()
    ratio = noise.flatten(1).norm(dim=1) / score.flatten(1).norm(dim=1)
    size = (2 * (corruption.alpha(t) / corruption.alpha(s)) ** 2 * (0.2 * ratio) ** 2).reshape(3, 1, 1, 1)
    expected = x + size * score + (2 * size).sqrt() * noise
    torch.testing.assert_close(Langevin(1, 0.2)(x, t, s, 7, path_of(model, 3)), expected)


def test_a_correction_never_overshoots_the_noise():
    """A network that has learnt nothing may answer with a score of zero, and |z| / |score| has no bound."""
    t = torch.tensor(0.5, dtype=torch.float64)

    class Silent(GaussianOracle):
        def denoise(self, x_t, t, labels=None):
            return Posterior(x_t / self.corruption.alpha(t).to(x_t.dtype))

    model, x = Silent(Gaussian(VP()), (1, 4, 4)), torch.zeros(200, 1, 4, 4)
    corrected = Langevin(1, 0.16)(x, t, t, 0, path_of(model, 200))
    assert corrected.std().item() == pytest.approx(2**0.5 * float(model.corruption.sigma(t)), rel=0.1)


def test_correctors_take_norms_of_images_unless_told_to_reproduce_the_paper():
    model = GaussianOracle(Gaussian(VP()), (1, 4, 4), std=C)
    x, t = torch.randn(8, 1, 4, 4), torch.tensor(0.5, dtype=torch.float64)
    for norm, depends in (("image", False), ("batch", True)):
        whole = Langevin(1, 0.16, norm)(x, t, t, 0, path_of(model, 8))
        part = Langevin(1, 0.16, norm)(x[:3], t, t, 0, path_of(model, 3))
        assert torch.allclose(whole[:3], part, atol=1e-6) is not depends
    with pytest.raises(UserError, match="norm=rank"):
        Langevin(norm="rank")


def test_langevin_dynamics_have_their_known_stationary_variance():
    """x - h x / (2 v) + sqrt(h) z settles at v / (1 - h / (4 v)); NCSN's step a is h / 2."""
    model = GaussianOracle(Gaussian(Geometric(2, 0.999, 1.0)), (1, 16, 16), std=1.0)
    a, v = 0.15, 2.0
    sampler = AnnealedLangevin(2, Uniform(), repeats=60, step_size=a * 0.999**2, denoise=False)
    images = sampler(model, Keys(torch.arange(300), 0)).images.double()
    assert abs(float(images.var()) - 2.077922) < 5 * 2.08 * (2 / images.numel()) ** 0.5 + 0.004
    assert v / (1 - 2 * a / (4 * v)) == pytest.approx(2.077922, abs=1e-6)


def test_annealing_finds_the_weights_that_one_level_cannot():
    """Two far points, weights .2 and .8. From the broad level the weights come out; from a narrow one started
    in one mode everything stays there."""
    means = torch.tensor([-1.0, 1.0]).reshape(2, 1, 1, 1)
    law = (means, torch.full((2,), 0.05), torch.tensor([0.2, 0.8]))
    annealed = MixtureOracle(Gaussian(Geometric(10, 0.05, 5.0)), *law)
    images = AnnealedLangevin(10, Uniform(), 60, 5e-5 * 4)(annealed, Keys(torch.arange(3000), 0)).images
    assert abs(float((images > 0).double().mean()) - 0.8) < 0.05
    single = MixtureOracle(Gaussian(Geometric(2, 0.05, 0.06)), *law)
    images = AnnealedLangevin(2, Uniform(), 300, 2e-4)(single, Keys(torch.arange(300), 0)).images
    assert abs(float((images > 0).double().mean()) - 0.5) < 0.1  # as started: from around zero, either side


@pytest.mark.parametrize("steps", [1, 3, 10])
@pytest.mark.parametrize("schedule", [Linear(), VP(), Flow()], ids=lambda s: type(s).__name__)
def test_analytic_variances_make_ancestral_sampling_exact_for_gaussian_data(schedule, steps):
    """Whatever the number of steps, from the law at the first time and with the last step's noise."""
    corruption = Gaussian(schedule)
    times = Uniform()(steps, corruption)
    first = float(corruption.alpha(times[0]) ** 2 * C**2 + corruption.sigma(times[0]) ** 2)
    exact = variance_of(Spread(Eta(1.0), last=True), schedule, times, first)
    assert exact[-1] == pytest.approx(C**2, rel=1e-9)
    quiet = variance_of(Spread(Eta(1.0)), schedule, times, first)
    assert quiet[-1] < exact[-1]


def test_measured_variances_are_the_posteriors():
    """c^2 s^2 / (a^2 c^2 + s^2), and the papers' formula from the norm of the noise estimate agrees."""
    torch.manual_seed(0)
    corruption = Gaussian(Linear())
    model = GaussianOracle(corruption, (1, 8, 8), std=C)
    images = C * torch.randn(1000, 1, 8, 8)
    batches = iter(Batch(half, None, torch.arange(500)) for half in images.chunk(2))
    sampler = Analytic(5, Uniform(), Eta(1.0), clip=False, images=1000)
    measured = sampler.fit(model, batches, Ambient(500, CPU))[VARIANCES]
    times = Uniform()(5, corruption)[:-1]
    alpha, sigma = corruption.alpha(times), corruption.sigma(times)
    exact = C**2 * sigma**2 / (alpha**2 * C**2 + sigma**2)
    torch.testing.assert_close(measured, exact, rtol=5 * (2 / 64_000) ** 0.5, atol=0)
    noise_norm = sigma**2 / (alpha**2 * C**2 + sigma**2)  # E |eps_hat|^2 / D of the exact denoiser
    torch.testing.assert_close((sigma / alpha) ** 2 * (1 - noise_norm), exact)
    samples = sampler(model, Keys(torch.arange(10), 0), None, {VARIANCES: measured})
    assert samples.nfe.unique().tolist() == [5]
    with pytest.raises(UserError, match="fitted"):
        sampler(model, Keys(torch.arange(10), 0))


def test_a_poor_estimates_variance_is_cut_at_what_is_possible():
    """An estimate that errs more than x_t / alpha itself, or than no estimate at all, is not believed."""
    torch.manual_seed(0)
    corruption = Gaussian(Linear())

    class Poor(GaussianOracle):
        def denoise(self, x_t, t, labels=None):
            return Posterior(torch.full_like(x_t, 9.0))

    images = C * torch.randn(500, 1, 4, 4)
    batches = iter([Batch(images, None, torch.arange(500))])
    sampler = Analytic(5, Uniform(), Eta(1.0), clip=False, images=500)
    measured = sampler.fit(Poor(corruption, (1, 4, 4), std=C), batches, Ambient(500, CPU))[VARIANCES]
    times = Uniform()(5, corruption)[:-1]
    ratio = (corruption.sigma(times) / corruption.alpha(times)) ** 2
    spread = images.double().square().mean() - images.double().mean() ** 2
    torch.testing.assert_close(measured, torch.minimum(ratio, spread))


def test_a_learned_share_goes_from_the_posteriors_variance_to_betas():
    corruption = Gaussian(Cosine(100))
    s, t = torch.tensor([0.5, 0.51], dtype=torch.float64)
    x = torch.zeros(1, 1, 2, 2, dtype=torch.float64)
    levels = corruption.level(s), corruption.level(t)
    large = (1 - (levels[1].alpha / levels[0].alpha) ** 2).sqrt()  # sqrt(beta) at VP
    small = levels[0].sigma * large / levels[1].sigma
    for share, expected in ((0.0, small), (1.0, large), (0.5, (small * large).sqrt())):
        law = LearnedVariance().law(corruption, x, Posterior(x, share=torch.full_like(x, share)), s, t)
        torch.testing.assert_close(law.std, expected.expand_as(x))
    eta = Eta(1.0).law(corruption, x, Posterior(x), s, t)
    torch.testing.assert_close(torch.stack(list(law.coefficients)), torch.stack(list(eta.coefficients)))
    data, half = torch.zeros((), dtype=torch.float64), Posterior(x, share=torch.full_like(x, 0.5))
    last = LearnedVariance().law(corruption, x, half, data, t)
    assert not last.std.any()
    with pytest.raises(UserError, match="model=iddpm"):
        LearnedVariance().check_estimate(Posterior(x))


def test_repeated_times_change_nothing_under_any_rule():
    corruption = Gaussian(Linear())
    t = torch.tensor(0.001, dtype=torch.float64)
    x, x0 = torch.randn(2, 1, 2, 2).double(), Posterior(torch.randn(2, 1, 2, 2).double())
    for rule in (Eta(0.0), Eta(1.0), EulerMaruyama(1.0), ReverseDiffusion()):
        law = rule.law(corruption, x, x0, t, t)
        torch.testing.assert_close(law.mean, x)
        assert float(law.std) == 0
    assert Quadratic()(50, corruption)[-3:-1].tolist() == [0.001, 0.001]
