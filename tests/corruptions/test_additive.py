"""A degradation and a little noise: cold diffusion's samplers, laws to start from, and times."""

from __future__ import annotations

import math
from itertools import repeat

import pytest
import torch

from genbench.contracts import Batch, Posterior, UserError
from genbench.corruptions.additive import Additive
from genbench.corruptions.clock import Timed
from genbench.corruptions.cold import Faded
from genbench.corruptions.fading import GeometricWidth, Heat, Pixelation, SineWidth
from genbench.corruptions.rules import Mixed
from genbench.corruptions.terminal import Examples, FittedNormal
from genbench.ops.combine import expand
from genbench.ops.random import Ambient, Keys
from genbench.samplers.grids import Uniform
from genbench.samplers.restore import Restore

SHAPE = (2, 4, 4)
ONE = torch.ones((), dtype=torch.float64)
TIMES = torch.tensor([0.2, 0.7, 1.0], dtype=torch.float64)


class Ramp(Additive):
    """F_t(x) = x + t e with e known: nothing of x is lost."""

    def degrade(self, x0, t):
        e = torch.linspace(-1, 2, x0[0].numel(), dtype=x0.dtype).reshape(x0.shape[1:])
        return x0 + expand(t, x0) * e


class Rising(Ramp):
    """Noise that grows with time."""

    def sigma(self, t):
        return 0.3 * t


class Guess:
    """A model whose estimate of x0 is a function of x_t and t."""

    image_shape = SHAPE

    def __init__(self, corruption, guess):
        self.corruption, self.guess = corruption, guess

    def denoise(self, x_t, t, labels=None):
        return Posterior(self.guess(x_t, t))


def time(value: float) -> torch.Tensor:
    return torch.tensor(value, dtype=torch.float64)


def images(count: int, shape=SHAPE, seed: int = 0) -> torch.Tensor:
    """Normals, float64."""
    return Keys(torch.arange(count), seed).normal(shape, step=99).double()


def batches(x: torch.Tensor, size: int):
    """The same images in batches, without end."""
    for whole in repeat(x):
        for piece in whole.split(size):
            yield Batch(piece, None, torch.arange(len(piece)))


COLD = {
    "ramp": Ramp(),
    "noisy ramp": Ramp(noise=0.1),
    "rising": Rising(),
    "blur": Faded(Heat(SineWidth(3.0))),
    "noisy blur": Faded(Heat(GeometricWidth(0.3, 3.0)), noise=0.02),
    "pixelation": Faded(Pixelation()),
}
every_corruption = pytest.mark.parametrize("corruption", COLD.values(), ids=COLD.keys())


# ------------------------------------------------------------------------------------------ going forward


@every_corruption
def test_nothing_has_happened_at_first(corruption):
    x0 = images(3)
    noise = corruption.draw(x0.shape, Keys(torch.arange(3), 0))
    torch.testing.assert_close(corruption.apply(x0, noise, time(0)), x0, rtol=0, atol=1e-14)


@every_corruption
def test_noise_of_the_known_level_is_added(corruption):
    x0 = images(3)
    noise = corruption.draw(x0.shape, Keys(torch.arange(3), 0))
    for t in (time(0.6), TIMES):
        expected = corruption.degrade(x0, t) + expand(corruption.sigma(t), x0) * noise
        torch.testing.assert_close(corruption.apply(x0, noise, t), expected)


def test_noise_is_of_one_level_but_at_the_data():
    found = Ramp(noise=0.1).sigma(torch.tensor([0.0, 1e-9, 0.5, 1.0], dtype=torch.float64))
    assert torch.equal(found, torch.tensor([0.0, 0.1, 0.1, 0.1], dtype=torch.float64))


# ---------------------------------------------------------------------------------------- and coming back


GUESSES = {
    "nothing": lambda x, t: torch.zeros_like(x),
    "waves": lambda x, t: torch.sin(5 * x + 7 * t),
    "mirrored": lambda x, t: 2 * torch.cos(x.flip(-1)) - t,
}


def walked(corruption, guess, rule, steps: int):
    """(where sampling started, where it ended), float64 [20, C, H, W]."""
    keys, x0 = Keys(torch.arange(20), 5), images(7)
    sampler, model = Restore(steps, Uniform(), rule, clip=False), Guess(corruption, guess)
    fitted = sampler.fit(model, batches(x0, 7), keys)
    start = corruption.terminal((20, *SHAPE), keys, fitted)
    return start, sampler(model, keys, fitted=fitted).images


@pytest.mark.parametrize("steps", [1, 4, 25])
@pytest.mark.parametrize("guess", GUESSES.values(), ids=GUESSES.keys())
def test_improved_sampling_needs_no_good_restoration_where_nothing_is_lost(guess, steps):
    """x_s = x_t + F_s(x0_hat) - F_t(x0_hat) undoes x + t e whatever x0_hat is (Bansal et al. 2022, section
    3.3); naive sampling, x_s = F_s(x0_hat), ends at the last guess."""
    corruption = Ramp(ending=Examples(images=7))
    start, improved = walked(corruption, guess, Mixed(0.0), steps)
    x0 = start - corruption.degrade(torch.zeros_like(start), ONE)
    torch.testing.assert_close(improved, x0, rtol=0, atol=1e-12)
    _, naive = walked(corruption, guess, Mixed(1.0), steps)
    assert (naive - x0).abs().flatten(1).amax(dim=1).min() > 0.1


@every_corruption
def test_both_samplers_agree_given_the_true_image(corruption):
    x0 = images(3)
    noise = corruption.draw(x0.shape, Keys(torch.arange(3), 0))
    x_t = corruption.apply(x0, noise, time(0.8))
    keys = Keys(torch.arange(3), 1)
    naive, improved = (
        Mixed(share).law(corruption, x_t, Posterior(x0), time(0.3), time(0.8)) for share in (1.0, 0.0)
    )
    if corruption.sigma(time(0.3)) == 0:
        torch.testing.assert_close(naive.sample(keys, 4), improved.sample(keys, 4))
    torch.testing.assert_close(naive.mean, corruption.degrade(x0, time(0.3)))


@every_corruption
@pytest.mark.parametrize("s", [0.0, 0.1, 0.5])
def test_the_deterministic_rule_stays_on_its_trajectory(corruption, s):
    """Given the true x0 it is F_s(x0) + sigma_s eps with the eps of x_t (kexue.fm 9271, rule 2)."""
    x0 = images(3)
    noise = corruption.draw(x0.shape, Keys(torch.arange(3), 0))
    t = time(0.8) if s else TIMES  # one time for all images, or one for each
    found = Mixed(0.0).law(corruption, corruption.apply(x0, noise, t), Posterior(x0), time(s) * (t > 0), t)
    expected = corruption.apply(x0, noise, time(s))
    torch.testing.assert_close(found.sample(Keys(torch.arange(3), 1), 0), expected, rtol=0, atol=1e-13)


@pytest.mark.parametrize("fresh", [0.0, 0.5, 1.0])
def test_no_noise_is_the_limit_of_little_noise(fresh):
    x_t, x0, keys = images(3), images(3, seed=1), Keys(torch.arange(3), 2)
    little, none = (
        Mixed(fresh).law(Ramp(noise=noise), x_t, Posterior(x0), time(0.3), time(0.8)).sample(keys, 0)
        for noise in (1e-8, 0.0)
    )
    torch.testing.assert_close(little, none, rtol=0, atol=1e-7)


@pytest.mark.parametrize("corruption", [Ramp(noise=0.1), Rising()], ids=["level", "rising"])
def test_the_mixed_rule_keeps_a_share_of_the_noise(corruption):
    """F_s(x0_hat) + sigma_s (sqrt(1 - v^2) eps_hat + v z), eps_hat = (x_t - F_t(x0_hat)) / sigma_t."""
    x_t, x0, s, t, v = images(3), images(3, seed=1), time(0.3), time(0.8), 0.6
    found = Mixed(v).law(corruption, x_t, Posterior(x0), s, t)
    eps = (x_t - corruption.degrade(x0, t)) / corruption.sigma(t)
    expected = corruption.degrade(x0, s) + corruption.sigma(s) * (1 - v**2) ** 0.5 * eps
    torch.testing.assert_close(found.mean, expected)
    assert float(found.std) == pytest.approx(v * float(corruption.sigma(s)), rel=1e-12)


@pytest.mark.parametrize("v", [0.0, 0.6, 1.0])
def test_the_mixed_rule_keeps_the_law_of_the_earlier_time(v):
    """Condition (*) of kexue.fm 9262: x_s - F_s(x0) has mean 0 and variance sigma_s^2, within five standard
    errors of 64,000 pixels."""
    corruption, s, t = Rising(), time(0.4), time(0.8)
    x0 = images(2000)
    x_t = corruption.apply(x0, corruption.draw(x0.shape, Keys(torch.arange(2000), 1)), t)
    drawn = Mixed(v).law(corruption, x_t, Posterior(x0), s, t).sample(Keys(torch.arange(2000), 2), 0)
    rest = (drawn - corruption.degrade(x0, s)) / corruption.sigma(s)
    assert abs(float(rest.mean())) < 5 / rest.numel() ** 0.5
    assert abs(float(rest.square().mean()) - 1) < 5 * (2 / rest.numel()) ** 0.5


# ----------------------------------------------------------------------------------------- where to start


def correlated(count: int) -> torch.Tensor:
    """Images [count, 2, 3, 3] with a mean and a full covariance."""
    mixing = images(18, (18,), seed=3) * torch.linspace(0.1, 1, 18, dtype=torch.float64)
    return (images(count, (18,)) @ mixing + torch.linspace(-2, 2, 18)).reshape(count, 2, 3, 3)


def covariance(x: torch.Tensor) -> torch.Tensor:
    centred = (x - x.mean(dim=0)).double().flatten(1)
    return centred.T @ centred / len(x)


@pytest.mark.parametrize("scale", [1.0, 1e-4])
def test_a_normal_law_has_the_moments_of_degraded_images(scale):
    corruption = Ramp(ending=FittedNormal(images=500))
    x0 = scale * correlated(500)
    fitted = corruption.fit(batches(x0, 100), Keys(torch.arange(1), 0))
    degraded = corruption.degrade(x0, ONE)
    factors = fitted["terminal_factors"].double() / scale
    torch.testing.assert_close(factors.T @ factors, covariance(degraded) / scale**2, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(fitted["terminal_mean"].double(), degraded.mean(dim=0), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("noise", [0.0, 1.5])
def test_sampling_starts_from_that_law_and_its_noise(noise):
    """Mean and covariance of 20,000 draws within five standard errors, C + noise^2 I being the covariance."""
    corruption, count = Ramp(noise=noise, ending=FittedNormal(images=500)), 20_000
    x0 = correlated(500)
    fitted = corruption.fit(batches(x0, 100), Keys(torch.arange(1), 0))
    drawn = corruption.terminal((count, 2, 3, 3), Keys(torch.arange(count), 7), fitted)
    assert drawn.dtype == torch.float32
    degraded = corruption.degrade(x0, ONE)
    expected = covariance(degraded) + noise**2 * torch.eye(18)
    variances = expected.diagonal()
    errors = ((variances[:, None] * variances + expected**2) / count).sqrt()
    assert ((covariance(drawn) - expected).abs() < 5 * errors).all()
    off = (drawn.double().mean(dim=0) - degraded.mean(dim=0)).abs().flatten()
    assert (off < 5 * (variances / count).sqrt()).all()


def test_a_fully_blurred_image_has_a_dimension_for_each_channel():
    """Only its mean colour is left, three numbers (kexue.fm 9271); of half a blur there is more."""
    x0 = images(300, (3, 8, 8))
    for width, rank in ((40.0, 3), (1e-6, 192)):
        corruption = Faded(Heat(SineWidth(width)), ending=FittedNormal(images=300))
        fitted = corruption.fit(batches(x0, 300), Keys(torch.arange(1), 0))
        assert fitted["terminal_factors"].shape == (rank, 192)
    blurred = Faded(Heat(SineWidth(40.0)), ending=FittedNormal(images=300))
    fitted = blurred.fit(batches(x0, 300), Keys(torch.arange(1), 0))
    drawn = blurred.terminal((5, 3, 8, 8), Keys(torch.arange(5), 0), fitted)
    torch.testing.assert_close(drawn, drawn.mean(dim=(-2, -1), keepdim=True).expand_as(drawn))


def test_a_law_of_one_image_is_that_image():
    x0 = images(1).expand(50, *SHAPE)
    corruption = Ramp(ending=FittedNormal(images=50))
    fitted = corruption.fit(batches(x0, 50), Keys(torch.arange(1), 0))
    drawn = corruption.terminal((4, *SHAPE), Keys(torch.arange(4), 0), fitted)
    torch.testing.assert_close(drawn, corruption.degrade(x0[:4], ONE).float())


def test_examples_are_degraded_training_images_drawn_evenly():
    """Chi-square of 5 counts in 4,000 draws, 4 degrees of freedom: above 28.5 once in 100,000 seeds."""
    corruption, count = Ramp(ending=Examples(images=5)), 4000
    x0 = images(9).float()
    fitted = corruption.fit(batches(x0, 4), Keys(torch.arange(1), 0))
    drawn = corruption.terminal((count, *SHAPE), Keys(torch.arange(count), 3), fitted)
    same = (drawn[:, None] == corruption.degrade(x0[:5], ONE)).flatten(2).all(dim=2)
    assert (same.sum(dim=1) == 1).all()
    counts = same.sum(dim=0).double()
    assert float(((counts - count / 5) ** 2 / (count / 5)).sum()) < 28.5


def test_noise_is_added_to_draws_and_not_to_what_they_are_drawn_from():
    corruption = Ramp(noise=0.5, ending=Examples(images=1))
    fitted = corruption.fit(batches(images(1).float(), 1), Keys(torch.arange(1), 0))
    before = fitted["terminal_examples"].clone()
    drawn = corruption.terminal((4000, *SHAPE), Keys(torch.arange(4000), 3), fitted)
    assert torch.equal(fitted["terminal_examples"], before)
    noise = drawn - before
    assert abs(float(noise.square().mean()) / 0.25 - 1) < 5 * (2 / noise.numel()) ** 0.5


ENDINGS = [FittedNormal(images=60), Examples(images=60)]
every_ending = pytest.mark.parametrize("ending", ENDINGS, ids=lambda ending: type(ending).__name__)


@every_ending
def test_what_is_learnt_does_not_depend_on_batches(ending):
    x0 = images(60).float()
    corruption = Ramp(ending=ending)
    whole = corruption.fit(batches(x0, 60), Keys(torch.arange(1), 0))
    for size in (1, 7, 59):
        parts = corruption.fit(batches(x0, size), Keys(torch.arange(1), 0))
        assert whole.keys() == parts.keys()
        assert all(torch.equal(whole[name], parts[name]) for name in whole)


@every_ending
@pytest.mark.parametrize("batch", [1, 7, 64])
def test_starts_do_not_depend_on_their_batch(ending, batch):
    corruption, index = Ramp(noise=0.1, ending=ending), torch.arange(64)
    fitted = corruption.fit(batches(images(60).float(), 60), Keys(torch.arange(1), 0))
    start = lambda keys: corruption.terminal((keys.batch, *SHAPE), keys, fitted)
    apart = torch.cat([start(Keys(piece, 3)) for piece in index.split(batch)])
    assert torch.equal(start(Keys(index, 3)), apart)


@every_ending
def test_a_law_must_have_been_fitted(ending):
    with pytest.raises(ValueError, match="not been fitted"):
        Ramp(ending=ending).terminal((2, *SHAPE), Keys(torch.arange(2), 0), {})


@every_ending
def test_a_placeholder_stands_in_for_what_is_fitted(ending):
    corruption = Ramp(ending=ending)
    fitted = corruption.fit(batches(images(60), 60), Keys(torch.arange(1), 0))
    made = corruption.placeholder(SHAPE)
    assert made.keys() == fitted.keys()
    assert corruption.terminal((2, *SHAPE), Keys(torch.arange(2), 0), made).shape == (2, *SHAPE)


@pytest.mark.parametrize("batch", [1, 7, 20])
@pytest.mark.parametrize("rule", [Mixed(0.0), Mixed(0.6), Mixed(1.0)])
def test_images_do_not_depend_on_their_batch(rule, batch):
    corruption = Faded(Heat(GeometricWidth(0.3, 3.0)), noise=0.02, ending=FittedNormal(images=60))
    model, sampler = Guess(corruption, GUESSES["waves"]), Restore(6, Uniform(), rule)
    fitted = sampler.fit(model, batches(images(60).float(), 60), Keys(torch.arange(1), 0))
    index = torch.arange(20)
    apart = [sampler(model, Keys(piece, 3), fitted=fitted).images for piece in index.split(batch)]
    assert torch.equal(sampler(model, Keys(index, 3), fitted=fitted).images, torch.cat(apart))


# -------------------------------------------------------------------------------------------------- times


def test_discrete_times_are_drawn_evenly():
    """Chi-square of 5 counts in 4,000 draws, 4 degrees of freedom: above 28.5 once in 100,000 seeds."""
    torch.manual_seed(0)
    times = Ramp(steps=5).draw_times(4000, torch.device("cpu"))
    assert times.dtype == torch.float64
    assert torch.equal(times.unique(), torch.arange(1, 6).double() / 5)
    counts = (times * 5).round().long().bincount()[1:].double()
    assert float(((counts - 800) ** 2 / 800).sum()) < 28.5


def test_continuous_times_have_one_in_each_equal_part():
    torch.manual_seed(0)
    offsets = []
    for _ in range(400):
        times = Ramp().draw_times(10, torch.device("cpu"))
        assert ((times > 0) & (times <= 1)).all()
        assert torch.equal((times * 10).ceil().long().sort().values, torch.arange(1, 11))
        offsets.append(float((10 * times).frac().mean()))
    # Uniform within its part: five standard errors of the mean and of the variance (kurtosis 9 / 5).
    offset = torch.tensor(offsets)
    assert abs(float(offset.mean()) - 0.5) < 5 / math.sqrt(12 * 400)
    assert abs(float(offset.var()) - 1 / 12) < 5 * (0.8 / 400) ** 0.5 / 12


def test_no_continuous_time_is_zero_and_one_may_be_one(monkeypatch):
    monkeypatch.setattr(torch, "rand", torch.zeros)
    assert torch.equal(Ramp().draw_times(4, torch.device("cpu")), torch.tensor([1, 0.75, 0.5, 0.25]).double())


def test_networks_are_told_a_thousand_times_the_time():
    for corruption in (Ramp(), Ramp(steps=50)):
        told = corruption.conditioning(TIMES)
        assert told.dtype == torch.float32
        torch.testing.assert_close(told, torch.tensor([200.0, 700.0, 1000.0]))


def test_no_steps_are_refused():
    with pytest.raises(UserError, match=r"corruption\.steps=0"):
        Ramp(steps=0)


class Shifted(Timed):
    """A user's own: x_t = x0 + t z. Its noise is not told from x_t here, so only rule 1 is left."""

    def draw(self, shape, randomness):
        return randomness.normal(shape[1:])

    def apply(self, x0, noise, t):
        return x0 + expand(t, x0) * noise

    def terminal(self, shape, randomness, fitted):
        return randomness.normal(shape[1:])


def test_the_fresh_rule_follows_from_the_corruption_itself():
    """x_s = F_s(x0, z): mean x0 and variance s^2, within five standard errors of 64,000 pixels."""
    count, corruption = 2000, Shifted()
    x0, x_t = images(count), images(count, seed=1)
    keys = Keys(torch.arange(count), 2)
    law = Mixed(1.0).law(corruption, x_t, Posterior(x0), time(0.4), time(0.8))
    noise = (law.sample(keys, 3) - x0) / 0.4
    assert abs(float(noise.mean())) < 5 / noise.numel() ** 0.5
    assert abs(float(noise.square().mean()) - 1) < 5 * (2 / noise.numel()) ** 0.5
    # A new trajectory at every step, and neither the one that training would draw nor the start's.
    for other in (
        law.sample(keys, 4) - x0,
        corruption.draw(x0.shape, keys),
        corruption.terminal(x0.shape, keys, {}),
    ):
        correlation = float((noise * other).mean() / other.std())
        assert abs(correlation) < 5 / noise.numel() ** 0.5


def test_rules_that_keep_noise_are_refused_where_it_is_unknown():
    x = images(1)
    for rule in (Mixed(0.0), Mixed(0.5)):
        with pytest.raises(UserError, match="cannot recover"):
            rule.check(Shifted(), time(0.5), time(1.0))
        with pytest.raises(UserError, match="cannot tell its noise"):
            rule.law(Shifted(), x, Posterior(x), time(0.5), time(1.0))
    Mixed(1.0).check(Shifted(), time(0.5), time(1.0))


def test_training_draws_from_torchs_generators():
    torch.manual_seed(0)
    expected = torch.randn(4, *SHAPE)
    torch.manual_seed(0)
    assert torch.equal(Ramp().draw((4, *SHAPE), Ambient(4, torch.device("cpu"))), expected)


def test_sampling_starts_with_the_noise_of_the_last_time():
    corruption, keys = Rising(ending=Examples()), Keys(torch.arange(500), 0)
    examples = {"terminal_examples": torch.zeros(1, *SHAPE)}
    start = corruption.terminal((500, *SHAPE), keys, examples)
    assert abs(float(start.std()) - 0.3) < 5 * 0.3 / (2 * start.numel()) ** 0.5
    assert not examples["terminal_examples"].any()


def test_noise_below_nothing_is_refused():
    with pytest.raises(UserError, match="0 or more"):
        Faded(Heat(GeometricWidth(0.3, 2.0)), noise=-1.0)
