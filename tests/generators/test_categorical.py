"""Laws over grey levels read off a network's output: layouts, the cut logistic, known pixels, the loss."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile

from genbench.contracts import Batch, Step, UserError
from genbench.corruptions.chains import Absorbing, CosineKeep, DiscretisedGaussian, LinearKeep, Uniform
from genbench.corruptions.continuous import VP
from genbench.corruptions.edit import Edit
from genbench.corruptions.gaussian import Gaussian
from genbench.corruptions.masking import HIDDEN, Independent, Mask
from genbench.corruptions.rules import Bridge, Joint
from genbench.corruptions.tokens import one_hot, values
from genbench.generators.categorical import Categorical, Logistic, LogisticMixture, Logits
from genbench.generators.denoising import Denoising
from genbench.generators.estimators import Trial
from genbench.ops.random import Keys

V = 5


def levels(grey) -> torch.Tensor:
    return values(torch.as_tensor(grey), V)


def test_logits_are_laid_out_by_level_and_then_by_channel():
    """Output channel 3 v + c of a colour image says how likely level v of channel c is, at its own place."""
    output = torch.arange(2 * 3 * V * 4 * 6, dtype=torch.float32).reshape(2, 3 * V, 4, 6)
    found = Logits(V)(output, torch.zeros(2, 3, 4, 6))
    assert found.shape == (2, 3, 4, 6, V)
    for v in range(V):
        for c in range(3):
            assert torch.equal(found[:, c, :, :, v], output[:, 3 * v + c])


def test_a_residual_starts_from_what_is_there():
    """One more for x_t's own level (Austin et al. 2021, appendix B), whatever the output."""
    grey = torch.randint(0, V, (2, 3, 4, 6), generator=torch.Generator().manual_seed(0))
    output = torch.randn(2, 3 * V, 4, 6)
    added = Logits(V, residual=True)(output, levels(grey)) - Logits(V)(output, levels(grey))
    torch.testing.assert_close(added, one_hot(grey, V), rtol=0, atol=1e-6)


def test_what_is_hidden_starts_from_no_level():
    """Not from the darkest, of which a mask's value would be an extreme."""
    output, hidden = torch.randn(2, 3 * V, 4, 6), torch.full((2, 3, 4, 6), HIDDEN)
    assert torch.equal(Logits(V, residual=True)(output, hidden), Logits(V)(output, hidden))
    pair = torch.randn(2, 6, 4, 6)
    assert torch.equal(Logistic(V)(pair, hidden), Logistic(V)(pair, torch.zeros_like(hidden)))


def cut(mean: float, log_scale: float, count: int) -> torch.Tensor:
    """P(level) under a logistic law of this mean and scale e^(log_scale - 2), truncated; float64."""
    sharpness = math.exp(2 - log_scale)
    edges = (2 * torch.arange(count + 1, dtype=torch.float64) - 1) / (count - 1) - 1
    steps = torch.sigmoid(sharpness * (edges - mean)).diff()
    return steps / steps.sum()


def logistic(shift: float, log_scale: float, count: int, x_t: float = 0.0) -> torch.Tensor:
    output = torch.tensor([shift, log_scale]).reshape(1, 2, 1, 1)
    return Logistic(count)(output, torch.full((1, 1, 1, 1), x_t))[0, 0, 0, 0]


@pytest.mark.parametrize("count", [2, 17, 256])
@pytest.mark.parametrize("log_scale", [-4.0, -1.0, 0.0, 2.0, 6.0])
@pytest.mark.parametrize(("shift", "x_t"), [(0.0, 0.0), (0.4, -0.2), (-1.5, 0.3), (0.1, 0.9)])
def test_levels_are_cut_out_of_a_logistic_law(count, log_scale, shift, x_t):
    """Around tanh(x_t + m), edges half way between levels, sums to 1 over the levels in float32 to 1e-6."""
    found = logistic(shift, log_scale, count, x_t).softmax(dim=-1).double()
    mean = math.tanh(x_t + shift)
    assert abs(float(found.sum()) - 1) < 1e-6
    torch.testing.assert_close(found, cut(mean, log_scale, count), rtol=1e-3, atol=1e-6)


def test_means_come_before_scales_channel_by_channel():
    """Output channel c is the shift and channel 3 + c the log of the scale of channel c, at its own place."""
    torch.manual_seed(0)
    output, x_t = torch.randn(2, 6, 2, 3), torch.rand(2, 3, 2, 3) * 2 - 1
    found = Logistic(17)(output, x_t)
    assert found.shape == (2, 3, 2, 3, 17)
    for c in range(3):
        alone = Logistic(17)(output[:, [c, 3 + c]], x_t[:, c : c + 1])
        assert torch.equal(found[:, c : c + 1], alone)
    expected = cut(math.tanh(float(x_t[1, 2, 0, 1] + output[1, 2, 0, 1])), float(output[1, 5, 0, 1]), 17)
    torch.testing.assert_close(found[1, 2, 0, 1].softmax(dim=-1).double(), expected, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("log_scale", [-2.0, 0.0, 3.0])
def test_before_truncation_they_sum_to_the_logistics_mass_between_the_outer_edges(log_scale):
    found = logistic(0.3, log_scale, 256).double().exp().sum()
    sharpness, mean = math.exp(2 - log_scale), math.tanh(0.3)
    inside = [1 / (1 + math.exp(-sharpness * (edge - mean))) for edge in (1 + 1 / 255, -1 - 1 / 255)]
    assert float(found) == pytest.approx(inside[0] - inside[1], rel=1e-4)


@pytest.mark.parametrize("shift", [-200.0, -3.0, 0.0, 0.013, 3.0, 200.0])
@pytest.mark.parametrize("log_scale", [-1e4, -200.0, -80.0, -20.0, 0.0, 20.0, 80.0, 200.0, 1e4])
def test_extreme_means_and_scales_are_laws_too(shift, log_scale):
    """A law that sums to 1 and whose loss and gradient are finite at every level.

    A narrow one has all at the level nearest to its mean, a broad one the same at all levels.
    """
    output = torch.tensor([shift, log_scale]).reshape(1, 2, 1, 1).requires_grad_(True)
    nats = -Logistic(256)(output, torch.zeros(1, 1, 1, 1)).log_softmax(dim=-1).flatten()
    assert bool(nats.isfinite().all())
    for level in (0, 100, 255):
        (slope,) = torch.autograd.grad(nats[level], output, retain_graph=True)
        assert bool(slope.isfinite().all())
    nats = nats.detach()
    assert abs(float((-nats).exp().sum()) - 1) < 1e-6
    if log_scale <= -20:
        nearest = round((math.tanh(shift) + 1) * 127.5)
        if nearest != 128:  # a mean of 0 lies between two levels
            assert float(nats[nearest]) < 1e-6
    if log_scale >= 20:
        torch.testing.assert_close(nats, torch.full_like(nats, math.log(256)), rtol=1e-4, atol=0)


def test_tails_are_straight_lines_in_the_logarithm():
    """Far from its mean a logistic law falls by its sharpness times the width of a level, at each level."""
    found = -logistic(200.0, -2.0, 256).log_softmax(dim=-1)  # mean 1, sharpness e^4
    slopes = found[:200].double().diff()
    torch.testing.assert_close(slopes, torch.full_like(slopes, -math.exp(4) * 2 / 255), rtol=1e-3, atol=0)
    assert float(found[0]) > 100


@pytest.mark.parametrize("log_scale", [-2.0, 0.0, 3.0, 8.0])
@pytest.mark.parametrize("shift", [-3.0, 0.0, 0.4])
def test_masses_sum_to_what_lies_between_the_outer_edges(shift, log_scale):
    """In float64 to 1e-13, before any softmax could make it so (METHODS 9.9 g)."""
    output = torch.tensor([shift, log_scale], dtype=torch.float64).reshape(1, 2, 1, 1)
    found = float(Logistic(256)(output, torch.zeros(1, 1, 1, 1).double()).exp().sum())
    sharpness, mean = math.exp(2 - log_scale), math.tanh(shift)
    upper, lower = (1 / (1 + math.exp(-sharpness * (edge - mean))) for edge in (1 + 1 / 255, -1 - 1 / 255))
    assert found == pytest.approx(upper - lower, rel=1e-13)


def mixture(shifts, log_scales, shares, count: int, x_t: float = 0.0) -> torch.Tensor:
    """exp of the logits, float64, of one pixel whose components' tanh have these arguments."""
    middles = torch.tensor(shifts) - torch.linspace(-1, 1, len(shifts))
    output = (
        torch.cat((middles, torch.tensor(log_scales), torch.tensor(shares))).double().reshape(1, -1, 1, 1)
    )
    head = LogisticMixture(count, len(shifts))
    return head(output, torch.full((1, 1, 1, 1), x_t).double())[0, 0, 0, 0].exp()


@pytest.mark.parametrize("components", [2, 3, 5])
def test_equal_components_are_one(components):
    same = mixture([0.3] * components, [-1.0] * components, [0.7] * components, 17, x_t=0.2)
    torch.testing.assert_close(same, logistic(0.3, -1.0, 17, x_t=0.2).double().exp(), rtol=1e-5, atol=1e-7)


def test_a_mixture_is_the_sum_of_its_parts_in_their_shares():
    """Each by itself; and the whole has what its parts have between the outer edges, in float64."""
    shifts, log_scales, shares = [-0.8, 0.1, 1.2], [0.5, -1.0, 2.0], [0.3, -0.4, 1.0]
    found = mixture(shifts, log_scales, shares, 17)
    pi = torch.tensor(shares).double().softmax(dim=0)
    parts = [logistic(*each, 17).double().exp() for each in zip(shifts, log_scales, strict=True)]
    torch.testing.assert_close(found, (pi[:, None] * torch.stack(parts)).sum(dim=0), rtol=1e-5, atol=1e-7)
    total = 0.0
    for share, shift, log_scale in zip(pi.tolist(), shifts, log_scales, strict=True):
        sharpness, mean = math.exp(2 - log_scale), math.tanh(float(torch.tensor(shift)))
        ends = [1 / (1 + math.exp(-sharpness * (edge - mean))) for edge in (1 + 1 / 16, -1 - 1 / 16)]
        total += share * (ends[0] - ends[1])
    assert float(found.sum()) == pytest.approx(total, rel=1e-6)


def test_components_of_a_mixture_come_apart_from_an_output_of_zeros():
    """With gradients of their own, for every channel at its place: shifts first, then scales, then shares."""
    output = torch.zeros(1, 3 * 4 * 2, 3, 5, requires_grad=True)
    x_t = torch.zeros(1, 2, 3, 5)
    logits = LogisticMixture(17, 4)(output, x_t)
    assert logits.shape == (1, 2, 3, 5, 17)
    logits.log_softmax(dim=-1)[0, 1, 2, 3, 11].backward()
    reached = (output.grad != 0).nonzero()
    assert reached[:, 1].tolist() == [*range(1, 24, 2)]
    assert (reached[:, 2:] == torch.tensor([2, 3])).all()
    assert len(output.grad[0, 1:8:2, 2, 3].unique()) == 4


def test_a_mixture_of_one_is_refused():
    with pytest.raises(UserError, match="estimator=d3pm_logistic"):
        LogisticMixture(V, 1)


class Constant(nn.Module):
    """A network whose output is a parameter, whatever it sees."""

    def __init__(self, *shape: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.output = nn.Parameter(torch.randn(*shape))

    def forward(self, x, time, labels=None):
        return self.output.expand(len(x), *self.output.shape[1:])


def model(corruption, **kwargs) -> Denoising:
    return Denoising(Constant(1, 3 * V, 2, 2), corruption, Categorical(Logits(V), **kwargs), (3, 2, 2))


def grey(count: int) -> torch.Tensor:
    torch.manual_seed(1)
    return torch.randint(0, V, (count, 3, 2, 2))


def test_the_loss_is_the_mean_cross_entropy_in_nats():
    """-log q(x0 | x_t) by hand, pixel after pixel; a uniform law has log V."""
    head, x0 = Categorical(Logits(V)), grey(4)
    torch.manual_seed(2)
    output = torch.randn(4, 3 * V, 2, 2, dtype=torch.float64)
    expected = 0.0
    for b in range(4):
        for c in range(3):
            for place in range(4):
                y, x = divmod(place, 2)
                weights = [math.exp(float(output[b, 3 * v + c, y, x])) for v in range(V)]
                expected -= math.log(weights[x0[b, c, y, x]] / sum(weights)) / 48
    t = torch.ones(4, dtype=torch.float64)
    found = head.loss(Trial(levels(x0), None, levels(x0), t, output.float()), Edit(V))
    assert float(found.total) == pytest.approx(expected, rel=1e-6)
    assert float(found.parts["cross_entropy"]) == float(found.total)
    even = head.loss(Trial(levels(x0), None, levels(x0), t, torch.zeros_like(output)), Edit(V))
    assert float(even.total) == pytest.approx(math.log(V), rel=1e-6)


@pytest.mark.parametrize("rule", [None, Joint()])
def test_the_hybrid_is_its_parts_in_their_weights(rule):
    """L = c cross-entropy + b bound (Austin et al. 2021, eq. 5), the bound being of the rule's step."""
    corruption = Uniform(V, CosineKeep(), 10)
    hybrid = model(corruption, cross_entropy=0.25, bound=2.0, rule=rule)
    losses = hybrid.loss(Batch(levels(grey(64)), None, torch.arange(64)), Step(0, 1))
    torch.testing.assert_close(losses.total, 0.25 * losses.parts["cross_entropy"] + 2 * losses.parts["bound"])
    torch.manual_seed(3)
    trial = hybrid.trial(Batch(levels(grey(64)), None, torch.arange(64)))
    found = hybrid.estimator.loss(trial, corruption).parts["bound"]
    posterior = hybrid.denoise(trial.x_t, trial.t)
    expected = corruption.bound(trial.x0, posterior, trial.x_t, trial.t, rule or Bridge()).mean()
    torch.testing.assert_close(found, expected)
    other = corruption.bound(trial.x0, posterior, trial.x_t, trial.t, Bridge() if rule else Joint()).mean()
    assert abs(float((other - expected).detach())) > 1e-3


def test_the_posterior_has_the_logits_and_their_mean():
    uniform = model(Uniform(V, CosineKeep(), 10))
    x_t = levels(grey(6))
    found = uniform.denoise(x_t, torch.tensor(0.5).double())
    expected = uniform.network.output.unflatten(1, (V, 3)).movedim(1, -1).expand(6, 3, 2, 2, V)
    torch.testing.assert_close(found.logits, expected)
    torch.testing.assert_close(found.mean, (expected.softmax(-1) * levels(range(V))).sum(-1))


@pytest.mark.parametrize("corruption", [Mask(Independent()), Absorbing(V, LinearKeep(), 10)])
def test_what_is_known_is_certain_and_not_learnt(corruption):
    """Pixels that a mask shows, or that have not been absorbed: their level is the estimate."""
    known_one = model(corruption)
    keys = Keys(torch.arange(50), 0)
    x0 = levels(grey(50))
    x_t = corruption.apply(x0, corruption.draw(x0.shape, keys), torch.tensor(0.4).double())
    known = x_t != (HIDDEN if isinstance(corruption, Mask) else levels(V // 2))
    assert 0.2 < float(known.float().mean()) < 0.8
    found = known_one.denoise(x_t, torch.tensor(0.4).double())
    assert torch.equal(found.mean[known], x0[known])
    assert torch.equal(found.logits.softmax(-1)[known], one_hot(grey(50), V)[known])
    assert bool(found.logits.isfinite().all())
    free = known_one.network.output.unflatten(1, (V, 3)).movedim(1, -1).expand_as(found.logits)
    assert torch.equal(found.logits[~known], free[~known])
    output = known_one.network.output.detach().expand(50, -1, -1, -1).clone().requires_grad_(True)
    t = torch.full((50,), 0.4).double()
    known_one.estimator.loss(Trial(x0, None, x_t, t, output), corruption).total.backward()
    learnt = (output.grad.unflatten(1, (V, 3)) != 0).all(dim=1)
    assert torch.equal(learnt, ~known)


def test_the_loss_of_a_mask_is_of_its_hidden_pixels():
    """Hidden log V, shown nothing: a uniform output under t = .4 has log V times the share that is hidden."""
    corruption, x0 = Mask(Independent()), levels(grey(50))
    t = torch.full((50,), 0.4).double()
    x_t = corruption.apply(x0, corruption.draw(x0.shape, Keys(torch.arange(50), 0)), t)
    losses = Categorical(Logits(V)).loss(Trial(x0, None, x_t, t, torch.zeros(50, 3 * V, 2, 2)), corruption)
    hidden = float((x_t == HIDDEN).double().mean())
    assert float(losses.total) == pytest.approx(hidden * math.log(V), rel=1e-6)


def test_a_bound_needs_a_corruption_that_has_one():
    for corruption in (Edit(V), Gaussian(VP())):
        with pytest.raises(UserError, match="Type model=udm"):
            model(corruption, bound=1.0)
        model(corruption)
    for corruption in (Mask(Independent()), Uniform(V, CosineKeep(), 10)):
        model(corruption, bound=1.0)


# ------------------------------------------------------------------------------------------------- memory

SIDE, MANY = 16, 256
UNIT = 4 * SIDE * SIDE * MANY
"""Bytes of the logits of one grey image of 256 levels."""


def peak(function) -> float:
    """The most memory that `function` held at a time beyond what there was, in units of logits."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        function()
    # Of the events shown as its results, those within an operation are left out.
    events = [event for event in profiler.profiler.kineto_results.events() if event.name() == "[memory]"]
    changes = (event.nbytes() for event in sorted(events, key=lambda event: event.start_ns()))
    return max(itertools.accumulate(changes)) / UNIT


@pytest.mark.parametrize(
    ("corruption", "head", "bound", "most"),
    [
        (Uniform(MANY, CosineKeep(), 100), Logits(MANY, residual=True), 1.0, 8.6),
        (DiscretisedGaussian(MANY, 3, 0.01, 0.1), Logits(MANY, residual=True), 1.0, 10.6),
        (Uniform(MANY, CosineKeep(), 100), Logistic(MANY), 1.0, 10.1),
        (Mask(Independent()), Logits(MANY), 1.0, 4.1),
        (Edit(MANY), Logits(MANY), 0.0, 3.1),
    ],
    ids=lambda each: type(each).__name__,
)
def test_training_holds_few_tensors_as_large_as_the_logits(corruption, head, bound, most):
    """256 levels of CIFAR-10 have .4 GB in a batch of 128. Bounds are what was measured and .1 more.

    Of `Logits` one is the network's output, and of Gaussian chains two are matrices, as large as this image.
    """
    torch.manual_seed(0)
    x0, t = values(torch.randint(0, MANY, (1, 1, SIDE, SIDE)), MANY), torch.ones(1).double() * 2 / 3
    x_t = corruption.apply(x0, corruption.draw(x0.shape, Keys(torch.arange(1), 0)), t)
    channels = MANY if isinstance(head, Logits) else 2
    estimator = Categorical(head, 1.0 - 0.5 * bound, bound)

    def step() -> None:
        output = torch.randn(1, channels, SIDE, SIDE, requires_grad=True)
        estimator.loss(Trial(x0, None, x_t, t, output), corruption).total.backward()

    step()
    assert peak(step) <= most


@pytest.mark.parametrize("kind", [Uniform, Absorbing])
def test_corrupting_needs_no_laws(kind):
    corruption, keys = kind(MANY, LinearKeep(), 10), Keys(torch.arange(1), 0)
    x0 = torch.zeros(1, 1, SIDE, SIDE)
    noise = corruption.draw(x0.shape, keys)
    assert peak(lambda: corruption.apply(x0, noise, torch.ones(1).double() / 2)) <= 0.1
    assert peak(lambda: corruption.terminal(x0.shape, keys, {})) <= 0.2
