"""Grey levels as tokens: an exact inverse, means over levels, and draws with the frequencies they state."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from genbench.contracts import Posterior
from genbench.corruptions.tokens import (
    CategoricalLaw,
    drawn_alike,
    expectation,
    one_hot,
    probabilities,
    surprise,
    tokens,
    values,
)
from genbench.ops.categorical import categorical
from genbench.ops.quantize import dequantize, quantize
from genbench.ops.random import Keys
from genbench.samplers.draws import Apart

LAW = torch.tensor([0.15, 0.0, 0.6, 0.25])
COUNT = 20_000


def drawn(x0: Posterior, keys: Keys, step: int) -> Posterior:
    return Apart()(x0, keys, step, {})


def frequencies_fit(grey: torch.Tensor, law: torch.Tensor) -> bool:
    """Whether the frequencies of levels are within five standard errors of their law."""
    found = one_hot(grey.flatten(), len(law)).double().mean(dim=0)
    return bool(((found - law).abs() <= 5 * (law * (1 - law) / grey.numel()).sqrt()).all())


@pytest.mark.parametrize("levels", [2, 3, 16, 17, 255, 256])
def test_tokens_and_values_are_inverse(levels):
    grey = torch.arange(levels)
    spread = values(grey, levels)
    assert torch.equal(tokens(spread, levels), grey)
    assert spread.dtype == torch.float32
    assert spread[[0, -1]].tolist() == [-1.0, 1.0]
    torch.testing.assert_close(spread.diff(), torch.full((levels - 1,), 2 / (levels - 1)), rtol=0, atol=1e-7)


@pytest.mark.parametrize("levels", [2, 3, 17, 256])
def test_the_nearest_level_is_taken(levels):
    grey = torch.arange(levels)
    width = 2 / (levels - 1)
    for away in (-0.49, 0.49):
        assert torch.equal(tokens(values(grey, levels) + away * width, levels), grey)
    assert tokens(torch.tensor([-9.0, 1.001, 9.0]), levels).tolist() == [0, levels - 1, levels - 1]


def test_tokens_of_256_levels_are_the_bytes_of_images():
    """What data reads as byte k is token k, and token k is written as byte k."""
    grey = torch.arange(256)
    assert torch.equal(tokens(dequantize(grey.byte()), 256), grey)
    assert torch.equal(quantize(values(grey, 256)), grey.byte())


@pytest.mark.parametrize("places", [(), (2, 3)])
def test_one_law_for_all_images_draws_as_a_law_for_each(places):
    """Levels of probability zero, sums that are not 1 and all of (0, 1) included."""
    law = torch.rand(*places, 7, generator=torch.Generator().manual_seed(0)) * 3
    law[..., [0, 4, 6]] = 0.0
    uniform = Keys(torch.arange(500), 0).uniform((2, 3))
    uniform[0], uniform[1] = 2.0**-24, 1 - 2.0**-24
    found = drawn_alike(law, uniform)
    assert torch.equal(found, categorical(law.expand(*uniform.shape, 7), uniform))
    assert found.unique().tolist() == [1, 2, 3, 5]
    halves = torch.tensor([0.5, 0.0, 0.5])
    assert drawn_alike(halves, torch.tensor([0.25, 0.5, 0.75])).tolist() == [0, 2, 2]


def test_surprise_is_the_cross_entropy_and_so_is_its_gradient():
    generator = torch.Generator().manual_seed(0)
    logits = (5 * torch.randn(2, 3, 4, 6, generator=generator, dtype=torch.float64)).requires_grad_(True)
    grey = torch.randint(0, 6, (2, 3, 4), generator=generator)
    expected = F.cross_entropy(logits.movedim(-1, 1), grey, reduction="none")
    torch.testing.assert_close(surprise(logits, grey), expected)
    weights = torch.randn(2, 3, 4, generator=generator, dtype=torch.float64)
    (mine,), (theirs,) = (
        torch.autograd.grad((weights * nats).sum(), logits) for nats in (surprise(logits, grey), expected)
    )
    torch.testing.assert_close(mine, theirs)


def test_the_expectation_is_over_values():
    """Of (.15, 0, .6, .25) on -1, -1/3, 1/3 and 1, it is .3."""
    found = expectation(LAW.log().expand(2, 1, 3, 4, 4) + 7)
    assert found.shape == (2, 1, 3, 4)
    torch.testing.assert_close(found, torch.full_like(found, -0.15 + 0.6 / 3 + 0.25))


def test_a_posterior_is_read_by_its_logits_or_else_is_certain():
    """Logits are softmaxed, whatever their sum; without them the mean's own level has all."""
    mean = values(torch.tensor([[0, 3, 1]]), 4)
    by_logits = probabilities(Posterior(mean, logits=LAW.log().expand(1, 3, 4) + 7), 4)
    torch.testing.assert_close(by_logits, LAW.expand(1, 3, 4))
    assert torch.equal(probabilities(Posterior(mean + 0.1), 4), torch.eye(4)[[0, 3, 1]][None])


def test_draws_of_x0_have_the_frequencies_of_its_logits():
    """And pixels are drawn apart: in pairs, the product of frequencies, within five standard errors."""
    posterior = Posterior(torch.zeros(COUNT, 1, 1, 2), logits=LAW.log().expand(COUNT, 1, 1, 2, 4))
    found = drawn(posterior, Keys(torch.arange(COUNT), 0), 3)
    assert found.logits is None  # it is certain from here on
    grey = tokens(found.mean, 4).flatten(1)
    assert torch.equal(values(grey, 4), found.mean.flatten(1))
    assert frequencies_fit(grey, LAW)
    assert frequencies_fit(4 * grey[:, 0] + grey[:, 1], torch.outer(LAW, LAW).flatten())


def test_draws_of_x0_by_its_variance():
    """A Gaussian of the stated moments, here another variance for each pixel, within five standard errors."""
    variance = torch.tensor([0.25, 0.0, 4.0]).reshape(1, 1, 1, 3)
    posterior = Posterior(torch.full((COUNT, 1, 1, 3), 0.3), variance=variance)
    found = drawn(posterior, Keys(torch.arange(COUNT), 0), 0).mean.flatten(1).double()
    for pixel, expected in zip(found.T, (0.25, 0.0, 4.0), strict=True):
        assert abs(float(pixel.mean()) - 0.3) <= 5 * (expected / COUNT) ** 0.5 + 1e-7
        assert abs(float(pixel.var()) - expected) <= 5 * expected * (2 / COUNT) ** 0.5


@pytest.mark.parametrize("total", [1.0, 1e-20, 1e20])
def test_a_law_is_drawn_from_whatever_its_sums(total):
    law = CategoricalLaw(total * LAW.expand(COUNT, 1, 1, 1, 4))
    assert frequencies_fit(tokens(law.sample(Keys(torch.arange(COUNT), 0), 0), 4), LAW)
    assert torch.equal(law.mean, torch.full((COUNT, 1, 1, 1), 1 / 3))  # the mode


def test_an_estimate_and_the_step_that_follows_are_drawn_apart():
    """One sampling step draws x0 and then x_s; with uniforms in common their pairs would not be products.

    Nor are the draws of two steps those of one."""
    keys = Keys(torch.arange(COUNT), 0)
    posterior = Posterior(torch.zeros(COUNT, 1, 1, 1), logits=LAW.log().expand(COUNT, 1, 1, 1, 4))
    law = CategoricalLaw(LAW.expand(COUNT, 1, 1, 1, 4))
    first = tokens(drawn(posterior, keys, 0).mean, 4)
    for other in (law.sample(keys, 0), drawn(posterior, keys, 1).mean, law.sample(keys, 1)):
        assert frequencies_fit(4 * first + tokens(other, 4), torch.outer(LAW, LAW).flatten())


@pytest.mark.parametrize("batch", [1, 7])
def test_draws_do_not_depend_on_their_batch(batch):
    torch.manual_seed(0)
    logits, index = torch.randn(20, 3, 2, 2, 5), torch.arange(20)
    mean = torch.zeros(20, 3, 2, 2)

    def both(rows):
        keys = Keys(rows, 5)
        x0 = drawn(Posterior(mean[rows], logits=logits[rows]), keys, 2).mean
        return torch.stack([x0, CategoricalLaw(logits[rows].exp()).sample(keys, 2)], dim=1)

    assert torch.equal(both(index), torch.cat([both(rows) for rows in index.split(batch)]))
