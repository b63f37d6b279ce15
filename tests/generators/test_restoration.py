"""Restoration of any corruption, and inverse heat dissipation: losses by hand, and what estimates mean."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch

from genbench.contracts import Posterior, UserError
from genbench.corruptions.blend import Blend, Snow
from genbench.corruptions.cold import Faded
from genbench.corruptions.deletion import Deletion, Rows
from genbench.corruptions.edit import Edit
from genbench.corruptions.fading import GeometricWidth, Heat, Pixelation
from genbench.corruptions.gaussian import Gaussian
from genbench.corruptions.masking import Counted, Independent, Mask
from genbench.corruptions.rules import LessDegraded, Mixed
from genbench.corruptions.schedules import Linear
from genbench.corruptions.spectral import Spectral
from genbench.corruptions.terminal import Examples
from genbench.generators.denoising import Denoising
from genbench.generators.estimators import Dissipation, Regression, Restoration, Trial
from genbench.generators.parameterisations import Epsilon
from genbench.ops.random import Keys
from genbench.samplers.grids import Quadratic, Uniform
from genbench.samplers.restore import Restore

SHAPE = (2, 4, 4)
BLUR = Heat(GeometricWidth(0.3, 3.0))
ANY = {
    "gaussian": Gaussian(Linear()),
    "spectral": Spectral(Linear(), BLUR, SHAPE),
    "blur": Faded(BLUR, noise=0.1),
    "snow": Blend(Snow()),
    "deletion": Deletion(Rows()),
    "edit": Edit(4),
    "mask": Mask(Counted()),
}
any_corruption = pytest.mark.parametrize("corruption", ANY.values(), ids=ANY.keys())


def time(value: float) -> torch.Tensor:
    return torch.tensor(value, dtype=torch.float64)


def images(count: int, seed: int = 0) -> torch.Tensor:
    """Even in [-1, 1], float32."""
    return 2 * Keys(torch.arange(count), seed).uniform(SHAPE, step=99) - 1


def trial(corruption, output: torch.Tensor, t: torch.Tensor) -> Trial:
    x0 = images(len(output))
    noise = corruption.draw(x0.shape, Keys(torch.arange(len(output)), 1))
    return Trial(x0, noise, corruption.apply(x0, noise, t), t, output)


# -------------------------------------------------------------------------------------------- restoration


@any_corruption
@pytest.mark.parametrize("power", [1, 2])
@pytest.mark.parametrize("residual", [False, True])
def test_the_loss_is_the_error_of_the_image(corruption, power, residual):
    """|x0 - x0_hat|^power, averaged over pixels and images; a known pixel has none, and no gradient."""
    estimator = Restoration(power, residual)
    estimator.check(corruption)
    output = images(3, seed=2).requires_grad_()
    found = trial(corruption, output, torch.tensor([0.3, 0.6, 1.0], dtype=torch.float64))
    expected = 0.0
    for i in range(3):
        for x0, x_t, out in zip(
            found.x0[i].flatten(), found.x_t[i].flatten(), output[i].detach().flatten(), strict=True
        ):
            estimate = x_t + out if residual else out
            if corruption is ANY["mask"] and x_t > -1.5:
                estimate = x_t
            expected += float(abs(x0 - estimate) ** power) / output.numel()
    loss = estimator.loss(found, corruption).total
    assert loss.item() == pytest.approx(expected, rel=1e-5)
    loss.backward()
    known = corruption.known(found.x_t)
    if known is not None:
        assert known.any()
        assert torch.equal(output.grad == 0, known)


@any_corruption
@pytest.mark.parametrize("residual", [False, True])
def test_the_estimate_is_what_the_loss_compares(corruption, residual):
    estimator, output, t = Restoration(2, residual), images(3, seed=2), torch.tensor([0.3, 0.6, 1.0]).double()
    found = trial(corruption, output, t)
    posterior = estimator.posterior(output, found.x_t, t, corruption)
    error = (posterior.mean - found.x0).square().mean()
    torch.testing.assert_close(estimator.loss(found, corruption).total, error)
    assert posterior.logits is None
    assert posterior.variance is None


@pytest.mark.parametrize("residual", [False, True])
def test_what_is_certain_is_kept(residual):
    mask, output = Mask(Counted()), images(4, seed=2)
    found = trial(mask, output, time(0.5))
    estimate = Restoration(2, residual).posterior(output, found.x_t, found.t, mask).mean
    known = found.x_t == found.x0
    assert (known.flatten(1).sum(dim=1) == 16).all()
    assert torch.equal(estimate[known], found.x0[known])
    assert torch.equal(estimate[~known], (output + found.x_t if residual else output)[~known])


@pytest.mark.parametrize(("power", "best"), [(1, 0.1), (2, 0.3)])
def test_squared_errors_learn_the_mean_and_absolute_ones_the_median(power, best):
    """Of x0 in {-.8, 0, .1, .8, 1.4} behind one x_t: both sides of the best constant cost more."""
    x0 = torch.tensor([-0.8, 0.0, 0.1, 0.8, 1.4]).reshape(5, 1, 1, 1)
    x_t, t = torch.zeros_like(x0), torch.ones(5, dtype=torch.float64)
    corruption, estimator = Faded(BLUR), Restoration(power, residual=False)
    cost = lambda c: float(estimator.loss(Trial(x0, x_t, x_t, t, torch.full_like(x0, c)), corruption).total)
    assert cost(best) < min(cost(best - 0.01), cost(best + 0.01))


def test_other_powers_are_refused():
    with pytest.raises(UserError, match=r"estimator\.power=3"):
        Restoration(power=3)


@any_corruption
def test_regression_is_of_signal_and_noise(corruption):
    """Where x_t is no sum of the two, the estimator that is says so and names the one that will do."""
    if corruption in (ANY["gaussian"], ANY["spectral"]):
        Regression(Epsilon()).check(corruption)
    else:
        with pytest.raises(UserError, match="estimator=restoration"):
            Denoising(torch.nn.Identity(), corruption, Regression(Epsilon()), SHAPE)


# -------------------------------------------------------------------------------------------- dissipation

STEPS = 8


def heat(noise: float = 0.1, steps: int | None = STEPS) -> Faded:
    return Faded(BLUR, noise=noise, ending=Examples(images=5), steps=steps)


def test_dissipation_learns_the_image_one_step_less_degraded():
    """|F_s(x0) - (x_t + output)|^2 without the noise of s, s = t - 1/T (Rissanen et al. 2023, eq. 8)."""
    corruption, output = heat(), images(3, seed=2)
    found = trial(corruption, output, torch.tensor([1 / STEPS, 0.5, 1.0], dtype=torch.float64))
    targets = [found.x0[0]]  # nothing has been degraded at 0
    targets += [BLUR.apply(found.x0[i : i + 1], time(t))[0] for i, t in ((1, 3 / STEPS), (2, 7 / STEPS))]
    expected = (torch.stack(targets) - found.x_t - output).square().mean()
    torch.testing.assert_close(Dissipation().loss(found, corruption).total, expected)
    perfect = Trial(found.x0, found.noise, found.x_t, found.t, torch.stack(targets) - found.x_t)
    assert float(Dissipation().loss(perfect, corruption).total) < 1e-12


def test_dissipation_knows_the_earlier_image_alone():
    x_t, output = images(2), images(2, seed=1)
    posterior = Dissipation().posterior(output, x_t, time(0.5), heat())
    assert torch.equal(posterior.earlier, x_t + output)


@pytest.mark.parametrize(
    "corruption",
    [heat(steps=None), Gaussian(Linear(10)), Mask(Independent(), steps=10), Blend(Snow(), steps=10)],
    ids=lambda corruption: type(corruption).__name__,
)
def test_dissipation_goes_by_the_steps_of_a_degradation(corruption):
    with pytest.raises(UserError, match=r"corruption\.steps=100"):
        Denoising(torch.nn.Identity(), corruption, Dissipation(), SHAPE)


@pytest.mark.parametrize("corruption", [heat(), Faded(Pixelation(), steps=1)])
def test_any_degradation_in_steps_will_do(corruption):
    Dissipation().check(corruption)


# ------------------------------------------------------------------------------------- its steps backwards


class Knows:
    """A model that knows the images: its estimates are of F_s(x0), for the x_s one step earlier."""

    image_shape = SHAPE

    def __init__(self, corruption, x0):
        self.corruption, self.x0, self.seen = corruption, x0, []

    def denoise(self, x_t, t, labels=None):
        self.seen.append(x_t)
        earlier = self.corruption.degrade(self.x0, t - 1 / STEPS)
        # As of a trained network: what its output adds to x_t.
        return Dissipation().posterior(earlier - x_t, x_t, t, self.corruption)


def test_a_step_back_is_the_models_own_mean_and_a_little_noise():
    x_t, earlier, keys = images(3), images(3, seed=1), Keys(torch.arange(3), 2)
    x0 = Posterior(images(3, seed=2), earlier=earlier)
    law = LessDegraded(0.3).law(heat(), x_t, x0, time(0.25), time(0.375))
    assert torch.equal(law.mean, earlier)
    assert float(law.std) == pytest.approx(0.3)
    last = LessDegraded(0.3).law(heat(), x_t, x0, time(0), time(0.125))
    assert torch.equal(last.sample(keys, 0), earlier)


def test_a_chain_adds_its_noise_at_every_step_but_the_last():
    """x_s ~ N(F_s(x0), delta^2) on the way, within five standard errors, and x0 in the end."""
    corruption, count, delta = heat(), 300, 0.2
    model = Knows(corruption, images(1).expand(count, *SHAPE))
    fitted = {"terminal_examples": images(5, seed=3)}
    sampler = Restore(STEPS, Uniform(), LessDegraded(delta), clip=False)
    sampler.check(model)
    model.seen.clear()
    drawn = sampler(model, Keys(torch.arange(count), 0), fitted=fitted)
    torch.testing.assert_close(drawn.images, model.x0, rtol=0, atol=1e-5)
    assert len(model.seen) == STEPS
    total = 0.0
    for number, x_t in enumerate(model.seen[1:], start=1):
        noise = (x_t - corruption.degrade(model.x0, time(1 - number / STEPS))).double() / delta
        assert abs(float(noise.mean())) < 5 / noise.numel() ** 0.5
        assert abs(float(noise.square().mean()) - 1) < 5 * (2 / noise.numel()) ** 0.5
        total = total + noise
    # And every step's is its own.
    assert abs(float(total.square().mean()) / (STEPS - 1) - 1) < 5 * (2 / total.numel()) ** 0.5


def test_a_chain_does_not_leave_out_steps():
    model, rule = Knows(heat(), images(2)), LessDegraded(0.1)
    Restore(STEPS, Uniform(), rule).check(model)
    for sampler in (Restore(STEPS // 2, Uniform(), rule), Restore(STEPS, Quadratic(), rule)):
        with pytest.raises(UserError, match=r"sampler\.steps=8 grid=uniform"):
            sampler.check(model)
    with pytest.raises(UserError, match=r"corruption\.steps=100 sampler\.steps=100"):
        Restore(STEPS, Uniform(), rule).check(Knows(heat(steps=None), images(2)))


@pytest.mark.parametrize("steps", [3, 200, 1000])
def test_every_number_of_steps_is_walked_one_by_one(steps):
    """No rounding of a time makes a step of the grid another than the corruption's."""
    corruption = heat(steps=steps)
    times = Uniform()(steps, corruption)
    for t, s in pairwise(times):
        LessDegraded(0.1).check(corruption, s, t)


def test_other_models_know_no_earlier_image():
    class Other(Knows):
        def denoise(self, x_t, t, labels=None):
            return Posterior(self.x0)

    x0 = images(1)
    with pytest.raises(UserError, match="model=ihdm"):
        Restore(STEPS, Uniform(), LessDegraded(0.1), clip=False).check(Other(heat(), x0))
    with pytest.raises(UserError, match="sampler=ihdm"):
        Restore(STEPS, Uniform(), Mixed(0.0), clip=False).check(Knows(heat(), x0))
