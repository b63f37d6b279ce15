"""Bounds of models of grey levels against likelihoods that are sums over all images, states and orders."""

from __future__ import annotations

import math
from itertools import product

import pytest
import torch
from torch import Tensor

from genbench.contracts import Posterior, UserError
from genbench.corruptions.chains import Absorbing, CosineKeep, DiscretisedGaussian, LinearKeep, Uniform
from genbench.corruptions.edit import Edit
from genbench.corruptions.masking import Counted, Growing, Independent, Mask
from genbench.corruptions.rules import Bridge, Joint, Mixed
from genbench.corruptions.tokens import one_hot, tokens, values
from genbench.generators.categorical import Categorical, Logits
from genbench.likelihood.categorical import CategoricalBound
from genbench.ops.random import Keys

V, T = 3, 4
STATES = torch.tensor(list(product(range(V), repeat=2)))
"""All images of two pixels."""
IMAGES = values(STATES, V).reshape(-1, 1, 1, 2)
CHAINS = [
    Uniform(V, LinearKeep(), T),
    Uniform(V, CosineKeep(), T),
    Absorbing(V, LinearKeep(), T),
    DiscretisedGaussian(V, T, 0.3, 1.0),  # leaves much at t = 1
]
every_chain = pytest.mark.parametrize("chain", CHAINS, ids=lambda chain: type(chain).__name__)
APART = torch.outer(torch.tensor([0.5, 0.2, 0.3]), torch.tensor([0.1, 0.6, 0.3])).flatten().double()
"""A law of images whose pixels are independent, and one whose pixels are not."""
TIED = torch.tensor([0.3, 0.01, 0.04, 0.1, 0.25, 0.02, 0.02, 0.06, 0.2]).double()
LAWS = pytest.mark.parametrize("law", [APART, TIED], ids=["apart", "tied"])


def time(value) -> Tensor:
    return torch.as_tensor(value, dtype=torch.float64)


class Exact:
    """The exact marginals p(x0 | x_t) of each of two pixels, for a law of their images [V^2]."""

    image_shape = (1, 1, 2)

    def __init__(self, corruption, law: Tensor) -> None:
        self.corruption, self.law = corruption, law

    def reach(self, x_t: Tensor, t: Tensor) -> Tensor:
        """q(x_t | x_0 = k) of each pixel, [B, 1, 1, 2, V]."""
        if isinstance(self.corruption, Mask):
            known = self.corruption.known(x_t)[..., None]
            return torch.where(known, one_hot(tokens(x_t, V), V), 1.0)
        return self.corruption.column(tokens(x_t, V), torch.zeros_like(t), t)

    def denoise(self, x_t: Tensor, t: Tensor, labels=None) -> Posterior:
        reach = self.reach(x_t, t).double().flatten(1, 3)  # [B, 2, V]
        joint = self.law * reach[:, 0, STATES[:, 0]] * reach[:, 1, STATES[:, 1]]
        marginals = torch.einsum("bs,spv->bpv", joint, one_hot(STATES, V).double())
        return Posterior(x_t, logits=marginals.log().float().reshape(*x_t.shape, V))


class Even:
    """Every level is as likely, whatever is seen."""

    def __init__(self, corruption, levels: int, image_shape=(1, 4, 4)) -> None:
        self.corruption, self.levels, self.image_shape = corruption, levels, image_shape

    def denoise(self, x_t: Tensor, t: Tensor, labels=None) -> Posterior:
        return Posterior(x_t, logits=torch.zeros(*x_t.shape, self.levels))


def forward(chain, t: Tensor) -> Tensor:
    """q(x_t | x_0) of images, [x_0, x_t]."""
    rows = chain.forward(torch.eye(V)[None], t)[0].double()
    return rows[STATES[:, None, 0], STATES[:, 0]] * rows[STATES[:, None, 1], STATES[:, 1]]


def negative_bound(model: Exact, rule) -> Tensor:
    """The bound of every image in nats, by sums over all times and x_t: [V^2]."""
    chain = model.corruption
    total = chain.prior(IMAGES).double().flatten(1).sum(1)
    for i in range(1, T + 1):
        t = time(i / T)
        weights = forward(chain, t)
        for at, x_t in enumerate(IMAGES):
            x_t = x_t.expand_as(IMAGES)
            nats = chain.bound(IMAGES, model.denoise(x_t, t), x_t, t, rule).double().flatten(1).sum(1)
            # An x_t that cannot be has no posterior.
            total += torch.where(weights[:, at] > 0, weights[:, at] * nats / T, 0.0)
    return total


def model_law(model: Exact, rule) -> Tensor:
    """p(x_0) of the chain that a sampler on all T times draws from, by sums over all states: [V^2]."""
    chain = model.corruption
    pixel = chain.stationary().double()
    law = pixel[STATES[:, 0]] * pixel[STATES[:, 1]]
    for i in range(T, 0, -1):
        t, s = time(i / T), time((i - 1) / T)
        back = rule.law(chain, IMAGES, model.denoise(IMAGES, t), s, t).probabilities.double()[:, 0, 0]
        back = (back / back.sum(-1, keepdim=True)).nan_to_num()
        law = law @ (back[:, 0][:, STATES[:, 0]] * back[:, 1][:, STATES[:, 1]])
    return law


@every_chain
@LAWS
@pytest.mark.parametrize("rule", [Bridge(), Joint(), Mixed(1.0)])
def test_it_is_a_bound_of_the_models_likelihood(chain, law, rule):
    """-log p(x_0) <= bound for each image, p being what the same model and rule sample."""
    model = Exact(chain, law)
    made = model_law(model, rule)
    assert float(made.sum()) == pytest.approx(1, abs=1e-5)
    assert bool((negative_bound(model, rule) >= -made.log() - 1e-5).all())


@every_chain
def test_an_exact_model_of_independent_pixels_has_its_own_likelihood(chain):
    """-log p(x_0) + E log q(x_1) / stationary(x_1): the terms of the bound telescope, image by image."""
    end = forward(chain, time(1.0))
    pixel = chain.stationary().double()
    stationary = pixel[STATES[:, 0]] * pixel[STATES[:, 1]]
    left = (torch.xlogy(end, APART @ end) - torch.xlogy(end, stationary)).sum(dim=1)
    found = negative_bound(Exact(chain, APART), Bridge())
    torch.testing.assert_close(found, -APART.log() + left, rtol=1e-4, atol=1e-5)


@every_chain
def test_dependent_pixels_cost_what_drawing_them_apart_loses(chain):
    """Above the entropy in the mean over the data."""
    found = TIED @ negative_bound(Exact(chain, TIED), Bridge())
    assert float(found) > float(-(TIED * TIED.log()).sum()) + 0.02


@every_chain
@LAWS
def test_the_last_step_is_the_cross_entropy(chain, law):
    """At s = 0 the bound is T times -log p(x0 | x_t), where x0 can have become x_t."""
    model, t = Exact(chain, law), time(1 / T)
    for x_t in IMAGES:
        x_t = x_t.expand_as(IMAGES)
        logits = model.denoise(x_t, t).logits
        expected = -T * logits.log_softmax(-1).gather(-1, tokens(IMAGES, V)[..., None])[..., 0]
        possible = model.reach(x_t, t).gather(-1, tokens(IMAGES, V)[..., None])[..., 0] > 0
        possible = possible.all(-1, keepdim=True).expand_as(possible)
        found = chain.bound(IMAGES, Posterior(x_t, logits=logits), x_t, t, Bridge())
        torch.testing.assert_close(found[possible], expected[possible], rtol=1e-4, atol=1e-4)


@every_chain
@pytest.mark.parametrize("rule", [Bridge(), Joint(), Mixed(1.0)])
def test_the_density_is_a_divergence_of_laws_of_one_step(chain, rule):
    """T KL(q(x_s | x_t, x_0) || p(x_s | x_t)), by torch's own, for any logits and a time for every image."""
    torch.manual_seed(0)
    logits, t = torch.randn(len(IMAGES), 1, 1, 2, V), time([1 / T, 2 / T, 3 / T]).repeat(3)
    x_t = chain.apply(IMAGES, chain.draw(IMAGES.shape, Keys(torch.arange(len(IMAGES)), 0)), t)
    laws = [
        torch.distributions.Categorical(law.law(chain, x_t, x0, t - 1 / T, t).probabilities.double())
        for law, x0 in ((Bridge(), Posterior(IMAGES)), (rule, Posterior(x_t, logits=logits)))
    ]
    found = chain.bound(IMAGES, Posterior(x_t, logits=logits), x_t, t, rule)
    expected = T * torch.distributions.kl_divergence(*laws)
    torch.testing.assert_close(found.double(), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", [Uniform, Absorbing, DiscretisedGaussian])
def test_even_images_have_eight_bits_under_chains(kind):
    """Exact models of even images of 256 levels, for each level of x0 and by sums over x_t."""
    steps, levels = 6, 256
    chain = (
        kind(levels, steps, 0.1, 3.0) if kind is DiscretisedGaussian else kind(levels, LinearKeep(), steps)
    )
    grey = torch.tensor([0, 1, 100, 128, 255])
    x0 = values(grey, levels)[:, None].expand(-1, levels)
    x_t = values(torch.arange(levels), levels).expand(5, -1)
    total = chain.prior(x0).double()[:, 0]
    for i in range(1, steps + 1):
        t = time(i / steps)
        reach = chain.column(tokens(x_t, levels), torch.zeros_like(t), t)
        weights = chain.forward(one_hot(grey, levels)[:, None], t)[:, 0].double()
        nats = chain.bound(x0, Posterior(x_t, logits=reach.log()), x_t, t, Bridge()).double()
        total += (torch.where(weights > 0, weights * nats, 0.0)).sum(dim=1) / steps
    torch.testing.assert_close(total / math.log(2), torch.full((5,), 8.0).double(), rtol=1e-4, atol=0)


@pytest.mark.parametrize("steps", [1, 2, 7, 50])
def test_an_even_estimate_under_an_absorbing_chain(steps):
    """The absorbed level being the middle one, an estimate that is even whatever is seen is not exact:

    log V + 1/T sum_i (i - 1) log((i - 1) / (i - 1 + 1/V)) for the other levels and, for the middle one,
    sum_i log(i / (i - 1 + 1/V)), as the model leaves with chance 1/i to any but the middle level.
    """
    chain = Absorbing(V, LinearKeep(), steps)
    t = torch.arange(1, steps + 1, dtype=torch.float64) / steps
    x_t = values(torch.full((steps, V), V // 2), V)
    x0 = values(torch.arange(V), V).expand(steps, V)
    nats = chain.bound(x0, Posterior(x_t, logits=torch.zeros(steps, V, V)), x_t, t, Bridge()).double()
    found = (nats * torch.where(torch.arange(V) == V // 2, 1.0, t[:, None])).mean(dim=0)
    before = torch.arange(steps, dtype=torch.float64)
    other = math.log(V) + (torch.xlogy(before, before) - before * (before + 1 / V).log()).sum() / steps
    middle = ((before + 1) / (before + 1 / V)).log().sum()
    torch.testing.assert_close(found, torch.stack([other, middle, other]), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("levels", [2, 17, 256])
@pytest.mark.parametrize(
    ("order", "side"),
    [(Counted(), 4), (Counted(), 7), (Counted(patch=2), 4), (Counted(patch=2, shared=True), 4)],
)
def test_an_even_estimate_has_log_v_under_masks_that_are_counted(levels, order, side):
    """Exactly, for every image: the pixels of each step cost log V each (8 bits of 256 levels).

    In steps of one cell, of many, and of one or none; 49 cells because i / 49 * 49 is not always i.
    """
    torch.manual_seed(0)
    images = values(torch.randint(0, levels, (3, 2, side, side)), levels)
    cells = order.cells(images)[0].numel()
    for steps in (cells, cells // 2, 3, 1, 2 * cells, cells + 3):
        model = Even(Mask(order, steps), levels)
        found = CategoricalBound(Bridge(), steps)(model, images, levels, Keys(torch.arange(3), 0))
        torch.testing.assert_close(found, torch.full((3,), math.log2(levels)).double())


@pytest.mark.parametrize("levels", [2, 256])
@pytest.mark.parametrize("steps", [None, 1, 7, 100])
def test_an_even_estimate_has_log_v_under_independent_masks(levels, steps):
    """At each time by itself: a share t is hidden and costs log V / t. Thresholds are evenly spaced here."""
    mask = Mask(Independent(), steps)
    thresholds = ((torch.arange(700) + 0.5) / 700).reshape(1, 1, 20, 35)
    x0 = values(torch.randint(0, levels, thresholds.shape), levels)
    for i in range(1, 8):
        t = time(i / 7)
        x_t = mask.apply(x0, thresholds, t)
        nats = mask.bound(x0, Even(mask, levels).denoise(x_t, t), x_t, t, Bridge())
        assert float(nats.mean()) == pytest.approx(math.log(levels), rel=1e-5)
    assert float(mask.prior(x0).abs().sum()) == 0


def masked(mask: Mask, model: Exact, hidden: tuple[bool, bool], t: float) -> Tensor:
    """The bound's density for each image, the sum over pixels at a mask and a time: [V^2]."""
    noise = torch.where(torch.tensor(hidden), t / 2, 1.0).reshape(1, 1, 1, 2).expand_as(IMAGES)
    x_t = mask.apply(IMAGES, noise, time(t))
    assert mask.known(x_t)[0].flatten().tolist() == [not h for h in hidden] or t == 1
    nats = mask.bound(IMAGES, model.denoise(x_t, time(t)), x_t, time(t), Bridge())
    return nats.double().flatten(1).sum(1)


@LAWS
@pytest.mark.parametrize("steps", [2, 3, 4, 5])
def test_pixels_shown_one_by_one_have_the_exact_likelihood(law, steps):
    """By the chain rule, in either order and dependent as they may be; steps that show none cost nothing."""
    mask = Mask(Counted(), steps)
    model = Exact(mask, law)
    total = torch.zeros(len(IMAGES)).double()
    for i in range(1, steps + 1):
        t = i / steps
        count = int(t * 2 + 1e-9)
        sets = [[], [(True, False), (False, True)], [(True, True)]][count]
        for hidden in sets:
            total += masked(mask, model, hidden, t) / len(sets) / steps
    torch.testing.assert_close(total, -law.log(), rtol=1e-5, atol=1e-5)


def test_pixels_shown_together_cost_what_drawing_them_apart_loses():
    """One step for both: -log of the product of marginals, which is p itself where they are independent."""
    mask = Mask(Counted(), 1)
    for law in (APART, TIED):
        square = law.reshape(V, V)
        expected = -torch.outer(square.sum(1), square.sum(0)).flatten().log()
        torch.testing.assert_close(
            masked(mask, Exact(mask, law), (True, True), 1.0), expected, rtol=1e-5, atol=1e-5
        )


@LAWS
@pytest.mark.parametrize("steps", [1, 2, 10, None])
def test_independent_masks_have_the_exact_likelihood_in_continuous_time(law, steps):
    """In T steps a share (T + 1) / 2T of shown pairs come together, and half of them for T without end.

    In continuous time the density is linear in t here, so that its integral is its value at 1/2.
    """
    mask = Mask(Independent(), steps)
    model = Exact(mask, law)
    times = [0.5] if steps is None else [i / steps for i in range(1, steps + 1)]
    total = torch.zeros(len(IMAGES)).double()
    for t in times:
        for hidden in product([True, False], repeat=2):
            chance = math.prod(t if h else 1 - t for h in hidden)
            if chance:
                total += chance * masked(mask, model, hidden, t) / len(times)
    marginals = -torch.outer(law.reshape(V, V).sum(1), law.reshape(V, V).sum(0)).flatten().log()
    share = 0.0 if steps is None else 1 / steps
    torch.testing.assert_close(total, share * marginals - (1 - share) * law.log(), rtol=1e-5, atol=1e-5)


def test_orders_without_a_bound_are_refused():
    """Counted masks show pixels at the times i / N alone, and a growing hole those at its edge."""
    for order, steps, typed in (
        (Counted(), None, r"corruption\.steps="),
        (Growing(), 16, "mask_independent"),
    ):
        model = Even(Mask(order, steps), V)
        with pytest.raises(UserError, match=typed):
            CategoricalBound(Bridge()).check(model)
        with pytest.raises(UserError, match=typed):
            Categorical(Logits(V), bound=1.0).check(model.corruption)
        Categorical(Logits(V)).check(model.corruption)
    CategoricalBound(Bridge()).check(Even(Mask(Independent()), V))


@every_chain
@pytest.mark.parametrize("evaluations", [1, 3, T, 9])
def test_any_number_of_evaluations_has_the_same_mean(chain, evaluations):
    """That of the sums over all times and x_t, in bits per dimension, within four standard errors."""
    count, model = 2000, Exact(chain, TIED)
    expected = negative_bound(model, Bridge())[5] / 2 / math.log(2)
    keys = Keys(torch.arange(count), 0)
    images = IMAGES[5:6].expand(count, -1, -1, -1)
    found = CategoricalBound(Bridge(), evaluations)(model, images, V, keys)
    assert found.dtype == torch.float64
    error = float(found.std()) / count**0.5
    assert abs(float(found.mean() - expected)) <= 4 * error
    assert error < 0.1


@pytest.mark.parametrize("corruption", [Mask(Counted(), 2), Mask(Independent()), CHAINS[1]])
def test_more_evaluations_have_less_noise(corruption):
    """One of a hundred times each, against one alone; 1,000 images, the ratio well above its error of 5 %."""
    keys = Keys(torch.arange(1000), 0)
    images = IMAGES[:1].expand(1000, -1, -1, -1)
    few, many = (
        CategoricalBound(Bridge(), n)(Exact(corruption, TIED), images, V, keys).var() for n in (1, 100)
    )
    assert float(many) < 0.5 * float(few)


def test_times_are_spread_over_all_parts_of_the_interval():
    """One in each of so many equal parts, another for every image; steps are rounded up, never to 0."""
    seen = []

    class Recording(Even):
        def denoise(self, x_t, t, labels=None):
            seen.append(t)
            return super().denoise(x_t, t)

    images, keys = torch.zeros(50, 1, 4, 4), Keys(torch.arange(50), 0)
    CategoricalBound(Bridge(), 8)(Recording(Mask(Independent()), V), images, V, keys)
    t = torch.stack(seen)
    assert torch.equal((8 * t).floor(), torch.arange(8.0).double()[:, None].expand(8, 50))
    assert len(t[0].unique()) == 50
    seen.clear()
    CategoricalBound(Bridge(), 16)(Recording(Mask(Counted(), 16), V), images, V, keys)
    expected = torch.arange(1, 17, dtype=torch.float64) / 16
    torch.testing.assert_close(torch.stack(seen), expected[:, None].expand(16, 50), rtol=0, atol=1e-15)


@pytest.mark.parametrize("corruption", [Mask(Counted(), 2), *CHAINS[1:]])
@pytest.mark.parametrize("batch", [1, 4])
def test_an_images_bound_does_not_depend_on_its_batch(corruption, batch):
    model, bound, index = Exact(corruption, TIED), CategoricalBound(Bridge(), 5), torch.arange(9)
    whole = bound(model, IMAGES, V, Keys(index, 3))
    apart = [bound(model, IMAGES[rows], V, Keys(rows, 3)) for rows in index.split(batch)]
    torch.testing.assert_close(torch.cat(apart), whole, rtol=1e-12, atol=0)


def test_models_of_something_else_are_refused():
    bound = CategoricalBound(Bridge(), 2)
    with pytest.raises(UserError, match="likelihood=ode"):
        bound.check(Even(Edit(V), V))
    for corruption in (Mask(Independent()), CHAINS[0]):
        bound.check(Even(corruption, V))
    images, keys = torch.zeros(2, 1, 4, 4), Keys(torch.arange(2), 0)
    with pytest.raises(UserError, match="17 grey levels"):
        bound(Even(Mask(Independent()), V), images, 17, keys)

    class Mean(Even):
        def denoise(self, x_t, t, labels=None):
            return Posterior(x_t)

    with pytest.raises(UserError, match="estimator=categorical"):
        bound(Mean(Mask(Independent()), V), images, V, keys)
