"""What x at t = 1 still says of x0 (METHODS 9.8, fact 8), and exact sampling of grey levels (fact 2)."""

from __future__ import annotations

import math
from itertools import combinations, pairwise, product

import pytest
import torch

from genbench.contracts import Corruption, Posterior
from genbench.corruptions.chains import Absorbing, CosineKeep, DiscretisedGaussian, LinearKeep, Uniform
from genbench.corruptions.deletion import Deletion, Rows
from genbench.corruptions.edit import Edit
from genbench.corruptions.masking import Counted, Growing, Independent, Mask
from genbench.corruptions.rules import Bridge, Mixed
from genbench.corruptions.tokens import one_hot, tokens, values
from genbench.ops.random import Keys

V = 5
COUNT = 40_000
ONE = torch.ones((), dtype=torch.float64)


def table(corruption: Corruption, seed: int = 0) -> torch.Tensor:
    """Counts of (level of x0, level of x_1) of the first of two pixels, x0 even; hidden is black."""
    x0 = values(torch.arange(COUNT) % V, V).reshape(-1, 1, 1, 1).expand(-1, 1, 2, 1)
    noise = corruption.draw(x0.shape, Keys(torch.arange(COUNT), seed))
    x_1 = corruption.apply(x0, noise, ONE)
    pairs = torch.arange(COUNT) % V * V + tokens(x_1, V)[:, 0, 0, 0]
    return one_hot(pairs, V * V).double().sum(dim=0).reshape(V, V)


def information(counts: torch.Tensor) -> float:
    """I(x0; x_1) in nats, of the frequencies."""
    p = counts / counts.sum()
    return float(
        torch.special.entr(p.sum(0)).sum() + torch.special.entr(p.sum(1)).sum() - torch.special.entr(p).sum()
    )


@pytest.mark.parametrize(
    "corruption",
    [
        *(Mask(order) for order in (Independent(), Counted(), Growing())),
        Deletion(Rows()),
        Uniform(V, CosineKeep(), 100),
        Uniform(V, LinearKeep()),
        Absorbing(V, LinearKeep(), 100),
        DiscretisedGaussian(V, 100, 0.02, 1.0),
    ],
    ids=lambda each: type(each).__name__ + type(getattr(each, "order", None)).__name__,
)
def test_nothing_of_an_image_is_left_at_the_end(corruption):
    """2 N I is then chi-square of 16 degrees of freedom at most, above 57.8 once in a million seeds."""
    assert 2 * COUNT * information(table(corruption)) < 57.8


def test_what_is_edited_throughout_still_says_what_was_not_there():
    """log V - log (V - 1) nats a pixel: x_1 is even over the other levels, and no image is independent of it.

    So sampling starts from frequencies that are learnt of the data, not from noise (kexue.fm 9271). The error
    of I is below .004, five standard deviations of log p(x0 | x_1), which is constant but for counts.
    """
    counts = table(Edit(V))
    assert float(counts.diagonal().sum()) == 0
    assert information(counts) == pytest.approx(math.log(V / (V - 1)), abs=4e-3)


def test_the_gaussian_chain_of_digits_forgets():
    """With conf's betas for 17 levels: below 1e-4 of log 17 nats, by sums."""
    end = DiscretisedGaussian(17, 100, 1e-3, 0.2).marginal(torch.arange(17)[None], ONE)[0]
    assert information(end.double()) < 1e-4 * math.log(17)


# ------------------------------------------------------------------------------------- exact for any estimate

SHARES = torch.tensor([0.2, 0.5, 0.3], dtype=torch.float64)
"""Of the three points -1, .5 and 2, which scaled to [-1, 1] are the levels 0, 1 and 2 of three."""
LEVELS = 3


def walked(corruption: Corruption, rule, words: torch.Tensor, likelihood, steps: int = 5) -> torch.Tensor:
    """How often each of the words [3, L] is what comes of x_1 by `steps` steps with draws of p(x0 | x_t).

    likelihood: x_t [B, L] -> p(x_t | word) [B, 3] up to a factor; -1 stands for what is hidden.
    """
    keys, length = Keys(torch.arange(COUNT), 0), words.shape[1]
    generator = torch.Generator().manual_seed(1)
    images = values(words, LEVELS).reshape(3, 1, length, 1)

    def drawn(weights: torch.Tensor) -> torch.Tensor:
        return images[torch.multinomial(weights, 1, generator=generator)[:, 0]]

    start = drawn(SHARES.expand(COUNT, -1))
    x = corruption.apply(start, corruption.draw(start.shape, keys), ONE)
    times = torch.linspace(1, 0, steps + 1, dtype=torch.float64)
    for step, (t, s) in enumerate(pairwise(times)):
        grey = torch.where(x < -1.5, -1, tokens(x, LEVELS))[:, 0, :, 0]
        x0 = drawn(SHARES * likelihood(grey))
        x = rule.law(corruption, x, Posterior(x0), s, t).sample(keys, step)
    same = (tokens(x, LEVELS)[:, 0, :, 0][:, None] == words).all(dim=2)
    assert same.any(dim=1).all()
    return same.double().mean(dim=0)


def fits(found: torch.Tensor) -> bool:
    return bool(((found - SHARES).abs() <= 5 * (SHARES * (1 - SHARES) / COUNT).sqrt()).all())


@pytest.mark.parametrize("rule", [Bridge(), Mixed(1.0)], ids=str)
@pytest.mark.parametrize("length", [1, 5])
def test_edits_give_three_points_their_weights(rule, length):
    """Images of one level each; of those that x_t can come from, all have as many ways to it."""
    words = torch.arange(3)[:, None].expand(3, length)
    counts = iter([int(i / 5 * length + 1e-6) for i in range(5, 0, -1)])

    def likelihood(grey: torch.Tensor) -> torch.Tensor:
        """At each step's time."""
        return ((grey[:, None] != words).sum(dim=2) == next(counts)).double()

    assert fits(walked(Edit(LEVELS), rule, words, likelihood))


@pytest.mark.parametrize("rule", [Bridge(), Mixed(1.0)], ids=str)
def test_deletions_give_three_words_their_weights(rule):
    """Columns of five of the three points; p(x_t | word) counts the ways in which x_t is left of it."""
    words = torch.tensor([[0, 1, 0, 2, 1], [0, 0, 1, 2, 1], [1, 0, 2, 1, 0]])
    ways = torch.zeros(3, *[4] * 5, dtype=torch.float64)
    for word, left in product(range(3), range(6)):
        for kept in combinations(range(5), left):
            code = [int(words[word, i]) for i in kept] + [-1] * (5 - left)
            ways[(word, *code)] += 1

    def likelihood(grey: torch.Tensor) -> torch.Tensor:
        return ways[:, *grey.T].T

    assert fits(walked(Deletion(Rows(), tolerance=0.01), rule, words, likelihood))
