"""Deletion: what is left keeps its order, and comes back among the units it stood between."""

from __future__ import annotations

from collections import Counter
from itertools import combinations

import pytest
import torch

from genbench.contracts import Posterior, UserError
from genbench.corruptions.deletion import Blocks, Columns, Deletion, Rows
from genbench.corruptions.masking import HIDDEN
from genbench.corruptions.rules import Bridge, Mixed
from genbench.ops.random import Keys
from genbench.samplers.draws import Apart
from genbench.samplers.grids import Uniform
from genbench.samplers.restore import Restore

UNITS = {"rows": Rows(), "columns": Columns(), "blocks": Blocks(2), "large blocks": Blocks(4)}
every_units = pytest.mark.parametrize("units", UNITS.values(), ids=UNITS.keys())
SHAPE = (3, 8, 12)
CHI_SQUARE = {2: 23.0, 3: 25.9, 5: 30.9, 9: 39.3}
"""By degrees of freedom, what is exceeded once in 100,000 seeds."""


def time(value: float) -> torch.Tensor:
    return torch.tensor(value, dtype=torch.float64)


def images(count: int, shape=SHAPE, seed: int = 0) -> torch.Tensor:
    """Even in [-1, 1], float32; no two units are the same."""
    return 2 * Keys(torch.arange(count), seed).uniform(shape, step=99) - 1


def lines(*rows: float) -> torch.Tensor:
    """One image of a column of pixels, [1, 1, L, 1]: a row is a number."""
    return torch.tensor(rows).reshape(1, 1, -1, 1)


def left(units, x: torch.Tensor) -> list[list[torch.Tensor]]:
    """The units of each image that are not hidden, after checking that they stand first."""
    split = units.split(x)
    gone = (split == HIDDEN).all(dim=2)
    assert torch.equal(gone, (split == HIDDEN).any(dim=2))
    assert (gone.int().diff(dim=1) >= 0).all()
    return [list(each[~hidden]) for each, hidden in zip(split, gone, strict=True)]


def within(part: list[torch.Tensor], whole: list[torch.Tensor]) -> bool:
    """Whether `part` can be had from `whole` by leaving some out."""
    rest = iter(whole)
    return all(any(torch.equal(unit, other) for other in rest) for unit in part)


def chi_square(found: Counter, expected: dict) -> float:
    """Of counts against probabilities."""
    assert found.keys() <= expected.keys()
    total = found.total()
    assert min(expected.values()) * total > 20
    return sum((found[key] - total * p) ** 2 / (total * p) for key, p in expected.items())


# ---------------------------------------------------------------------------------------------------- units


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 8, 12), (3, 4, 8)])
@every_units
def test_images_are_joined_from_their_units(units, shape):
    x = images(2, shape)
    assert torch.equal(units.join(units.split(x), x.shape), x)


def test_units_are_read_in_order():
    x = images(2)
    rows, columns, blocks = (UNITS[name].split(x) for name in ("rows", "columns", "large blocks"))
    assert (rows.shape, columns.shape, blocks.shape) == ((2, 8, 36), (2, 12, 24), (2, 6, 48))
    for i in range(8):
        assert torch.equal(rows[:, i], x[:, :, i].flatten(1))
    for j in range(12):
        assert torch.equal(columns[:, j], x[..., j].flatten(1))
    for i in range(2):
        for j in range(3):
            square = x[:, :, 4 * i : 4 * i + 4, 4 * j : 4 * j + 4]
            assert torch.equal(blocks[:, 3 * i + j], square.flatten(1))


def test_blocks_must_fill_the_image():
    with pytest.raises(UserError, match=r"side=5.*Type corruption\.units\.side=4"):
        Deletion(Blocks(5)).draw((1, *SHAPE), Keys(torch.arange(1), 0))


# ------------------------------------------------------------------------------------------------- deleting


@every_units
def test_the_counted_units_go_and_the_rest_moves_together(units):
    corruption, x0 = Deletion(units), images(5)
    whole = left(units, x0)
    length = len(whole[0])
    noise = corruption.draw(x0.shape, Keys(torch.arange(5), 0))
    assert torch.equal(corruption.apply(x0, noise, time(0)), x0)
    before = whole
    for gone in range(1, length + 1):
        # floor(t L), also where a rounding of float32 is missing.
        for t in (gone / length, gone / length - 2e-7, (gone + 0.9) / length):
            parts = left(units, corruption.apply(x0, noise, time(min(t, 1.0))))
            assert [len(part) for part in parts] == [length - gone] * 5
            assert all(within(part, earlier) for part, earlier in zip(parts, before, strict=True))
        before = parts
    assert (corruption.terminal(x0.shape, Keys(torch.arange(5), 0), {}) == HIDDEN).all()


def test_every_image_loses_units_at_a_time_of_its_own():
    corruption, x0, t = Deletion(Rows()), images(4), torch.tensor([0, 0.25, 0.6, 1], dtype=torch.float64)
    noise = corruption.draw(x0.shape, Keys(torch.arange(4), 0))
    together = corruption.apply(x0, noise, t)
    for i in range(4):
        assert torch.equal(together[i], corruption.apply(x0[i : i + 1], noise[i : i + 1], t[i])[0])


def test_any_units_go_alike():
    """Chi-square over the 6 pairs of four that are left, of 3,000 images."""
    corruption, x0 = Deletion(Rows()), lines(1, 2, 3, 4).expand(3000, 1, 4, 1)
    x_t = corruption.apply(x0, corruption.draw(x0.shape, Keys(torch.arange(3000), 0)), time(0.5))
    found = Counter(map(tuple, x_t[:, 0, :2, 0].tolist()))
    assert chi_square(found, dict.fromkeys(combinations((1.0, 2.0, 3.0, 4.0), 2), 1 / 6)) < CHI_SQUARE[5]


# --------------------------------------------------------------------------------------------- and regrowing


@every_units
@pytest.mark.parametrize("s", [0.0, 0.3, 0.6])
def test_given_the_true_image_a_step_stays_on_a_trajectory(units, s):
    """What is left at t is left at s, which is a deletion from x0 of the right count."""
    corruption, x0 = Deletion(units), images(10)
    length = units.split(x0).shape[1]
    keys = Keys(torch.arange(10), 0)
    x_t = corruption.apply(x0, corruption.draw(x0.shape, keys), time(0.7))
    x_s = Bridge().law(corruption, x_t, Posterior(x0), time(s), time(0.7)).sample(keys, 0)
    for whole, more, few in zip(left(units, x0), left(units, x_s), left(units, x_t), strict=True):
        assert len(more) == length - int(s * length + 1e-6)
        assert within(few, more)
        assert within(more, whole)


def test_any_of_the_missing_units_comes_back():
    """Of six units 2 and 5 are left; at s two of the other four are back, each pair alike: chi-square over
    the 6 pairs, of 3,000 draws."""
    x0, x_t = lines(1, 2, 3, 4, 5, 6), lines(2, 5, *[HIDDEN] * 4)
    x0, x_t = (x.expand(3000, 1, 6, 1) for x in (x0, x_t))
    law = Deletion(Rows()).bridge(x_t, Posterior(x0), time(2 / 6), time(4 / 6))
    found = law.sample(Keys(torch.arange(3000), 1), 0)[:, 0, :4, 0]
    expected = [tuple(sorted((2.0, 5.0, *pair))) for pair in combinations((1.0, 3.0, 4.0, 6.0), 2)]
    assert chi_square(Counter(map(tuple, found.tolist())), dict.fromkeys(expected, 1 / 6)) < CHI_SQUARE[5]


def test_steps_keep_the_law_of_the_earlier_time():
    """Condition (*) of kexue.fm 9262: whatever was left at t, any units are left at s alike."""
    corruption, x0 = Deletion(Rows()), lines(1, 2, 3, 4).expand(3000, 1, 4, 1)
    keys = Keys(torch.arange(3000), 0)
    x_t = corruption.apply(x0, corruption.draw(x0.shape, keys), time(0.75))
    x_s = corruption.bridge(x_t, Posterior(x0), time(0.5), time(0.75)).sample(keys, 0)
    found = Counter(map(tuple, x_s[:, 0, :2, 0].tolist()))
    assert chi_square(found, dict.fromkeys(combinations((1.0, 2.0, 3.0, 4.0), 2), 1 / 6)) < CHI_SQUARE[5]


def test_units_that_look_alike_may_have_stood_anywhere():
    """Of a b a b there are three ways to have left a b, and each is as likely. Then one of the two missing
    units comes back: chi-square over what may be left, of 3,000 draws."""
    x0, x_t = lines(-0.5, 0.5, -0.5, 0.5), lines(-0.5, 0.5, HIDDEN, HIDDEN)
    x0, x_t = (x.expand(3000, 1, 4, 1) for x in (x0, x_t))
    law = Deletion(Rows(), tolerance=0.01).bridge(x_t, Posterior(x0), time(0.25), time(0.5))
    found = Counter(map(tuple, law.sample(Keys(torch.arange(3000), 1), 0)[:, 0, :3, 0].tolist()))
    expected: dict[tuple[float, ...], float] = {}
    word = (-0.5, 0.5, -0.5, 0.5)
    for place in ((0, 1), (0, 3), (2, 3)):
        for back in {0, 1, 2, 3} - set(place):
            key = tuple(word[i] for i in sorted((*place, back)))
            expected[key] = expected.get(key, 0) + 1 / 6
    assert chi_square(found, expected) < CHI_SQUARE[len(expected) - 1]


def test_places_are_drawn_by_how_well_units_match():
    """All ways to place three units in order among five, in proportion to exp(-sum of squares / (2 tol^2)),
    of differences averaged over the pixels of a unit: chi-square, of 20,000 draws."""
    tolerance = 0.4
    x0 = torch.tensor([[0.1, 0.5], [0.4, -0.2], [-0.3, 0.0], [0.2, 0.6], [0.0, 0.3]])
    few = torch.tensor([[0.21, 0.31], [-0.11, 0.11], [0.31, 0.41]])
    x_t = torch.cat((few, torch.full((2, 2), HIDDEN)))
    weights = {
        place: float(torch.exp(-(few - x0[list(place)]).square().mean(dim=1).sum() / (2 * tolerance**2)))
        for place in combinations(range(5), 3)
    }
    expected = {place: weight / sum(weights.values()) for place, weight in weights.items()}
    batch = [each[None, None].expand(20_000, 1, 5, 2) for each in (x_t, x0)]
    law = Deletion(Rows(), tolerance=tolerance).bridge(batch[0], Posterior(batch[1]), time(0), time(0.4))
    grown = law.sample(Keys(torch.arange(20_000), 0), 0)[:, 0]
    placed = (grown != x0).any(dim=2)
    assert torch.equal(grown[placed].reshape(-1, 3, 2), few.expand(20_000, 3, 2))
    found = Counter(tuple(each.nonzero().flatten().tolist()) for each in placed)
    assert chi_square(found, expected) < CHI_SQUARE[9]


def test_a_bad_estimate_does_not_lose_what_is_left():
    """Units far from all of the estimate's still find places, in order, and the others are the estimate's."""
    units, x0, other = Rows(), images(10, (1, 28, 3)), images(10, (1, 28, 3), seed=1) + 50
    corruption, keys = Deletion(units, tolerance=0.01), Keys(torch.arange(10), 0)
    x_t = corruption.apply(x0, corruption.draw(x0.shape, keys), time(0.5))
    x_s = corruption.bridge(x_t, Posterior(other), time(0.25), time(0.5)).sample(keys, 0)
    for guess, more, few in zip(left(units, other), left(units, x_s), left(units, x_t), strict=True):
        assert len(more) == 21
        kept, new = ([unit for unit in more if (unit > 10).all() == far] for far in (False, True))
        assert len(kept) == len(few)
        assert all(map(torch.equal, kept, few))
        assert within(new, guess)


def test_every_step_brings_back_units_of_its_own():
    x0, x_t = images(50), torch.full((50, *SHAPE), HIDDEN)
    law, keys = Deletion(Rows()).bridge(x_t, Posterior(x0), time(0.5), time(1)), Keys(torch.arange(50), 0)
    assert torch.equal(law.sample(keys, 0), law.sample(keys, 0))
    assert not torch.equal(law.sample(keys, 0), law.sample(keys, 1))


class Knows:
    """A model that knows the images."""

    def __init__(self, corruption, x0):
        self.corruption, self.x0, self.seen = corruption, x0, []
        self.image_shape = tuple(x0.shape[1:])

    def denoise(self, x_t, t, labels=None):
        self.seen.append(x_t)
        return Posterior(self.x0)


@every_units
@pytest.mark.parametrize("alike", [False, True])
def test_a_chain_with_the_true_image_ends_there(units, alike):
    """One unit comes back at every step, also where many look the same, if near ones are told apart."""
    x0 = images(6)
    x0 = (x0 > 0.9).float() if alike else x0
    length = units.split(x0).shape[1]
    model = Knows(Deletion(units, tolerance=0.01), x0)
    drawn = Restore(length, Uniform(), Bridge(), clip=False)(model, Keys(torch.arange(6), 0)).images
    assert torch.equal(drawn, x0)
    assert [len(left(units, seen)[0]) for seen in model.seen] == list(range(length))


def test_places_do_not_depend_on_the_draw_of_the_estimate():
    """x0_hat is drawn black or white alike, and where the one unit left stood is open between two places:
    all four outcomes are as likely, by chi-square of 3,000 images."""
    keys, x_t = Keys(torch.arange(3000), 0), lines(0.0, HIDDEN).expand(3000, 1, 2, 1)
    estimate = Posterior(torch.zeros(3000, 1, 2, 1), logits=torch.zeros(3000, 1, 2, 1, 2))
    drawn = Apart()(estimate, keys, 0, {})
    law = Deletion(Rows(), tolerance=1e6).bridge(x_t, drawn, time(0), time(0.5))
    grown = law.sample(keys, 0)[:, 0, :, 0]
    found = Counter(map(tuple, grown.tolist()))
    pairs = [(0.0, 1.0), (0.0, -1.0), (1.0, 0.0), (-1.0, 0.0)]
    assert chi_square(found, dict.fromkeys(pairs, 1 / 4)) < CHI_SQUARE[3]


def test_rules():
    """Fresh deletes from the estimate anew; where units stood is not told from what is left."""
    corruption, x0 = Deletion(Rows()), lines(1, 2, 3, 4).expand(3000, 1, 4, 1)
    x_t, keys = lines(7, HIDDEN, HIDDEN, HIDDEN).expand(3000, 1, 4, 1), Keys(torch.arange(3000), 0)
    x_s = Mixed(1.0).law(corruption, x_t, Posterior(x0), time(0.5), time(0.75)).sample(keys, 0)
    found = Counter(map(tuple, x_s[:, 0, :2, 0].tolist()))
    assert chi_square(found, dict.fromkeys(combinations((1.0, 2.0, 3.0, 4.0), 2), 1 / 6)) < CHI_SQUARE[5]
    with pytest.raises(UserError, match="rule=bridge"):
        Mixed(0.0).check(corruption, time(0.5), time(0.75))


@pytest.mark.parametrize("batch", [1, 7])
@pytest.mark.parametrize("rule", [Bridge(), Mixed(1.0)])
def test_images_do_not_depend_on_their_batch(rule, batch):
    sampler, index = Restore(5, Uniform(), rule), torch.arange(20)
    x0 = images(20)
    sampled = lambda piece: sampler(Knows(Deletion(Blocks(4)), x0[piece]), Keys(piece, 3)).images
    assert torch.equal(sampled(index), torch.cat([sampled(piece) for piece in index.split(batch)]))


def test_a_step_of_different_times_is_refused():
    x_t, times = lines(7, HIDDEN).expand(2, 1, 2, 1), torch.tensor([0.5, 1.0], dtype=torch.float64)
    with pytest.raises(ValueError, match="one time"):
        Deletion(Rows()).bridge(x_t, Posterior(x_t), times / 2, times).sample(Keys(torch.arange(2), 0), 0)


def test_units_are_objects_and_their_names_are_told():
    with pytest.raises(UserError, match=r"_target_=genbench\.corruptions\.deletion\.Columns"):
        Deletion("Columns")
