"""Gradients of a chain's bound where the estimate is sharp and wrong, as those of young networks are."""

from __future__ import annotations

import math

import pytest
import torch

from genbench.contracts import Posterior, Rule
from genbench.corruptions.chains import Absorbing, DiscretisedGaussian, LinearKeep, Uniform
from genbench.corruptions.rules import Bridge, Joint, Mixed
from genbench.corruptions.tokens import tokens, values
from genbench.generators.categorical import Categorical, Head, Logistic, Logits
from genbench.generators.estimators import Trial
from genbench.ops.random import Keys

DIGITS = DiscretisedGaussian(17, 100, 1e-3, 0.2)
RULES = [Bridge(), Joint(), Mixed(1.0)]
SHARPNESS = [1.0, 30.0, 100.0, 1e4]


@pytest.fixture(scope="module")
def photographs() -> DiscretisedGaussian:
    """Every level of 256, first steps as of T = 1,000: betas 1e-4 and on, which reach a few levels."""
    return DiscretisedGaussian(256, 1000, 1e-4, 0.02)


def output_towards(head: Head, target: torch.Tensor, x_t: torch.Tensor, sharpness: float) -> torch.Tensor:
    """The output that has `head` say the levels `target` [B, 1, H, W], the more certain the sharper."""
    if isinstance(head, Logits):
        return sharpness * torch.nn.functional.one_hot(target, head.levels)[:, 0].movedim(-1, 1).float()
    wanted = values(target, head.levels).clamp(-0.999, 0.999)
    return torch.cat((torch.atanh(wanted) - x_t, torch.full_like(x_t, -math.log(sharpness))), dim=1)


def losses_and_gradient(chain, head: Head, rule: Rule, sharpness: float, index: int):
    """The hybrid loss at t = index / T of 64 pixels, all said to have been at the level farthest from x_t."""
    torch.manual_seed(0)
    levels, t = chain.levels, torch.full((4,), index / chain.steps, dtype=torch.float64)
    x0 = values(torch.randint(0, levels, (4, 1, 4, 4)), levels)
    x_t = chain.apply(x0, chain.draw(x0.shape, Keys(torch.arange(4), 0)), t)
    wrong = torch.where(tokens(x_t, levels) < levels // 2, levels - 1, 0)
    output = output_towards(head, wrong, x_t, sharpness).requires_grad_(True)
    losses = Categorical(head, 0.001 * chain.steps, 1.0, rule).loss(Trial(x0, None, x_t, t, output), chain)
    losses.total.backward()
    return losses, output.grad


def check(chain, head: Head, rule: Rule, sharpness: float) -> None:
    for index in (1, 2, chain.steps // 10, chain.steps):
        losses, gradient = losses_and_gradient(chain, head, rule, sharpness, index)
        assert all(bool(part.isfinite() and part >= -1e-4) for part in losses.parts.values())
        assert bool(gradient.isfinite().all())


@pytest.mark.parametrize("sharpness", SHARPNESS)
@pytest.mark.parametrize("rule", RULES, ids=str)
@pytest.mark.parametrize("head", [Logits, Logistic])
@pytest.mark.parametrize("chain", [DIGITS, Uniform(17, LinearKeep(), 100), Absorbing(17, LinearKeep(), 100)])
def test_gradients_are_finite_however_wrong_the_estimate(chain, head, rule, sharpness):
    check(chain, head(17), rule, sharpness)


@pytest.mark.parametrize("sharpness", SHARPNESS)
@pytest.mark.parametrize("rule", RULES, ids=str)
@pytest.mark.parametrize("head", [Logits, Logistic])
def test_gradients_are_finite_of_photographs(photographs, head, rule, sharpness):
    check(photographs, head(256), rule, sharpness)


@pytest.mark.parametrize("index", [1, 5, 50])
def test_the_bridge_of_a_sharp_estimate_is_of_what_can_have_become_x_t(photographs, index):
    """A law of x0 that has e^-200 for any level but the farthest, none of which can be: by float64's sums.

    In float32 no such level has any probability; relative to each other they do.
    """
    chain, levels = photographs, 256
    s, t = (torch.tensor(i / 1000, dtype=torch.float64) for i in (index - 1, index))
    at_t = torch.arange(0, 60, 20).reshape(1, 1, 1, 3)
    torch.manual_seed(0)
    logits = torch.randn(1, 1, 1, 3, levels) - 200
    logits[..., -1] = 0.0
    found = chain.bridge(values(at_t, levels), Posterior(torch.zeros(1, 1, 1, 3), logits=logits), s, t)
    past, earlier = (chain.marginal(torch.arange(levels)[None], time)[0].double() for time in (t, s))
    onward = chain.column(at_t, s, t)[0, 0, 0].double()
    for pixel, grey in enumerate(at_t.flatten().tolist()):
        reach = past[:, grey]
        share = torch.where(reach > 1e-37, logits[0, 0, 0, pixel].double(), -torch.inf).softmax(dim=-1)
        expected = (share / reach.clamp(min=1e-37)) @ earlier * onward[pixel]
        law = found.probabilities[0, 0, 0, pixel].double()
        torch.testing.assert_close(law / law.sum(), expected / expected.sum(), rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("rule", [Bridge(), Joint()], ids=str)
def test_the_gradient_is_the_slope_of_the_bound(rule):
    """Of estimates that are neither, against central differences."""
    chain, index = DIGITS, 7
    torch.manual_seed(0)
    t = torch.full((1,), index / 100, dtype=torch.float64)
    x0 = values(torch.randint(0, 17, (1, 1, 2, 2)), 17)
    x_t = chain.apply(x0, chain.draw(x0.shape, Keys(torch.arange(1), 0)), t)
    logits = (3 * torch.randn(1, 1, 2, 2, 17)).requires_grad_(True)
    bound = chain.bound(x0, Posterior(x_t, logits=logits), x_t, t, rule).sum()
    (slope,) = torch.autograd.grad(bound, logits)
    direction = torch.randn_like(slope)
    step = 1e-2
    moved = [logits.detach() + sign * step * direction for sign in (1, -1)]
    ends = [float(chain.bound(x0, Posterior(x_t, logits=each), x_t, t, rule).sum()) for each in moved]
    expected = float((slope * direction).sum())
    assert (ends[0] - ends[1]) / (2 * step) == pytest.approx(expected, rel=2e-3, abs=1e-2)
