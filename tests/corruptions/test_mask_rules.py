"""Confidence decides which pixels are shown: counts, order, and the random limit."""

from __future__ import annotations

import pytest
import torch

from genbench.contracts import Posterior, UserError
from genbench.corruptions.gaussian import Gaussian
from genbench.corruptions.mask_rules import Confident
from genbench.corruptions.masking import HIDDEN, Counted, Growing, Independent, Mask
from genbench.corruptions.schedules import Linear
from genbench.corruptions.tokens import tokens
from genbench.ops.random import Keys

MASK = Mask(Counted())
COUNT = 4000


def time(value: float) -> torch.Tensor:
    return torch.tensor(value, dtype=torch.float64)


def estimate(sureness: torch.Tensor, count: int = COUNT) -> Posterior:
    """Level 2 of 3 with logits `sureness` [H, W] ahead of the others."""
    logits = torch.stack((0 * sureness, 0 * sureness, sureness), dim=-1)
    return Posterior(torch.zeros(count, 1, *sureness.shape), logits=logits.expand(count, 1, *logits.shape))


def stepped(x_t, sureness, s, t, temperature):
    law = Confident(temperature).law(MASK, x_t, estimate(sureness, len(x_t)), time(s), time(t))
    return law.sample(Keys(torch.arange(len(x_t)), 0), 0)


def test_the_surest_pixels_are_shown_and_shown_ones_stay():
    """Of draws of the likelier level, which all but one in a hundred are."""
    sureness = torch.tensor([[6.0, 10.0], [8.0, 12.0]])
    hidden = torch.full((COUNT, 1, 2, 2), HIDDEN)
    share = lambda x, *rows: (x == torch.tensor(rows)).flatten(1).all(dim=1).float().mean()
    half = stepped(hidden, sureness, 0.5, 1.0, 0.0)
    assert share(half, [HIDDEN, 1.0], [HIDDEN, 1.0]) > 0.98
    given = torch.tensor([[HIDDEN, -1.0], [HIDDEN, 1.0]]).expand(COUNT, 1, 2, 2)
    quarter = stepped(given, sureness, 0.25, 0.5, 0.0)
    assert share(quarter, [HIDDEN, -1.0], [1.0, 1.0]) > 0.98
    assert (quarter[:, 0, :, 1] == torch.tensor([-1.0, 1.0])).all()  # known, whatever the estimate
    assert share(stepped(given, sureness, 0.0, 0.5, 0.0), [1.0, -1.0], [1.0, 1.0]) > 0.98


@pytest.mark.parametrize("temperature", [0.0, 1.0, 100.0])
def test_exactly_the_counted_number_stays_hidden(temperature):
    x = torch.full((50, 1, 5, 7), HIDDEN)
    for s, t in ((0.9, 1.0), (0.5, 0.9), (0.3, 0.5), (0.0, 0.3)):
        x = stepped(x, torch.zeros(5, 7), s, t, temperature)
        assert ((x == HIDDEN).flatten(1).sum(1) == int(s * 35)).all()


def test_much_noise_is_a_random_order_and_it_falls_with_time():
    sureness = torch.tensor([[0.0, 5.0], [0.0, 5.0]])
    hidden = torch.full((COUNT, 1, 2, 2), HIDDEN)
    share = lambda x: (x == HIDDEN).float().mean(dim=0).flatten()
    random = share(stepped(hidden, sureness, 0.5, 1.0, 1e4))
    assert ((random - 0.5).abs() < 5 * 0.5 / COUNT**0.5).all()
    early, late = (share(stepped(hidden, sureness, 0.5, t, 2.0)) for t in (1.0, 0.6))
    assert float(early[1]) > float(late[1]) + 0.02  # a sure pixel is hidden by mistake less often


def test_levels_are_drawn_from_their_laws():
    x = stepped(torch.full((COUNT, 1, 1, 1), HIDDEN), torch.zeros(1, 1), 0.0, 1.0, 1.0)
    found = torch.bincount(tokens(x, 3).flatten(), minlength=3) / COUNT
    assert ((found - 1 / 3).abs() < 5 * (2 / 9 / COUNT) ** 0.5).all()


@pytest.mark.parametrize(
    "corruption", [Mask(Independent()), Mask(Growing()), Mask(Counted(patch=2)), Gaussian(Linear())]
)
def test_other_corruptions_are_refused(corruption):
    with pytest.raises(UserError, match="rule=bridge"):
        Confident().check(corruption, time(0.5), time(1.0))


def test_a_drawn_estimate_says_nothing_of_confidence():
    Confident().check(MASK, time(0.5), time(1.0))
    with pytest.raises(UserError, match="draw=mean"):
        Confident().check_estimate(Posterior(torch.zeros(1, 1, 2, 2)))


def test_every_image_has_noise_of_its_own_time():
    """In a batch as large as an image is wide, where a mistake would not be an error."""
    hidden, logits = torch.full((4, 1, 4, 4), HIDDEN), torch.randn(4, 1, 4, 4, 3)
    s, t = torch.tensor([[0.1, 0.3, 0.5, 0.7], [0.2, 0.4, 0.6, 1.0]], dtype=torch.float64)
    step = lambda at, s, t: (
        Confident(2.0)
        .law(MASK, hidden[at], Posterior(hidden[at], logits=logits[at]), s, t)
        .sample(Keys(torch.arange(4)[at], 0), 0)
    )
    together = step(slice(None), s, t)
    for i in range(4):
        assert torch.equal(together[i : i + 1], step(slice(i, i + 1), s[i], t[i]))
