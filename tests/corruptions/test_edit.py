"""Edits: exactly so many pixels differ, to any of the other levels, and steps back undo exactly so many."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch

from genbench.contracts import Batch, Posterior, UserError
from genbench.corruptions.edit import Edit
from genbench.corruptions.tokens import one_hot, tokens, values
from genbench.ops.random import Keys
from genbench.samplers.draws import Apart

V = 4
SHAPE = (3, 2, 2)
N = 12


def time(value) -> torch.Tensor:
    return torch.as_tensor(value, dtype=torch.float64)


def images(count: int, levels: int = V) -> torch.Tensor:
    torch.manual_seed(0)
    return values(torch.randint(0, levels, (count, *SHAPE)), levels)


def edited(x0: torch.Tensor, t, levels: int = V, seed: int = 0) -> torch.Tensor:
    corruption = Edit(levels)
    return corruption.apply(x0, corruption.draw(x0.shape, Keys(torch.arange(len(x0)), seed)), time(t))


def distance(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Pixels that differ, [B]."""
    return (x != y).flatten(1).sum(dim=1)


def fits(found: torch.Tensor, law: torch.Tensor, count: int) -> bool:
    """Frequencies within five standard errors of `count` draws."""
    return bool(((found - law).abs() <= 5 * (law * (1 - law) / count).sqrt()).all())


@pytest.mark.parametrize("levels", [3, 17, 256])
def test_exactly_so_many_pixels_differ(levels):
    """floor(t N) (kexue.fm 9271) at times i / N, however rounded, between them, and for a batch of times."""
    x0 = images(50, levels)
    for i in range(N + 1):
        assert distance(edited(x0, i / N, levels), x0).tolist() == [i] * 50
        assert distance(edited(x0, (i + 0.9) / N, levels), x0).tolist() == [min(i, N)] * 50
    t = torch.linspace(0, 1, 50, dtype=torch.float64)
    expected = [int(time * N + 1e-9) for time in t.tolist()]
    assert distance(edited(x0, t, levels), x0).tolist() == expected
    assert torch.equal(edited(x0, 0.0, levels), x0)


def test_edits_of_one_trajectory_are_nested():
    """What has been edited stays so, with the same level."""
    x0 = images(50)
    for before, after in pairwise(edited(x0, i / N) for i in range(N + 1)):
        changed = before != x0
        assert torch.equal(after[changed], before[changed])


def test_any_of_the_other_levels_is_as_likely():
    """Of 60,000 pixels at t = 1, for every level they had; never that level itself."""
    x0 = images(5000)
    pairs = V * tokens(x0, V) + tokens(edited(x0, 1.0), V)
    for grey in range(V):
        now = pairs[pairs // V == grey] % V
        law = torch.full((V,), 1 / (V - 1)).double()
        law[grey] = 0
        assert fits(one_hot(now, V).double().mean(dim=0), law, len(now))


def test_any_of_the_pixels_is_as_likely_and_apart_from_its_new_level():
    """20,000 images of two edits of four pixels: six pairs of places by three of levels moved up, alike."""
    corruption, count = Edit(V), 20_000
    x0 = torch.full((count, 1, 2, 2), -1.0)  # level 0: the new one is how far it moved
    x_t = corruption.apply(x0, corruption.draw(x0.shape, Keys(torch.arange(count), 0)), time(0.5))
    code = (tokens(x_t, V).flatten(1) * V ** torch.arange(4)).sum(dim=1)
    found, counts = code.unique(return_counts=True)
    assert len(found) == 6 * 3**2
    assert fits(counts / count, torch.full((54,), 1 / 54), count)


@pytest.mark.parametrize("levels", [3, 256])
def test_a_certain_estimate_undoes_one_edit_a_step(levels):
    """In N steps down to x0 itself; every step changes one pixel, to its own level."""
    corruption, x0 = Edit(levels), images(200, levels)
    keys = Keys(torch.arange(200), 0)
    x = edited(x0, 1.0, levels)
    times = torch.linspace(1, 0, N + 1, dtype=torch.float64)
    for step, (t, s) in enumerate(pairwise(times)):
        before = x
        x = corruption.bridge(x, Posterior(x0), s, t).sample(keys, step)
        assert distance(x, before).tolist() == [1] * 200
        assert distance(x, x0).tolist() == [N - step - 1] * 200
    assert torch.equal(x, x0)


@pytest.mark.parametrize(("s", "t"), [(0.0, 1.0), (0.3, 0.8), (0.5, 0.75), (0.7, 0.74), (0.5, 0.5)])
def test_steps_of_any_size_leave_as_many_edits_as_their_time_has(s, t):
    """Also of times given for each image."""
    x0 = images(30)
    x_t = edited(x0, t)
    keys = Keys(torch.arange(30), 0)
    for times in ((time(s), time(t)), (time([s] * 30), time([t] * 30))):
        x_s = Edit(V).bridge(x_t, Posterior(x0), *times).sample(keys, 0)
        assert distance(x_s, x0).tolist() == [int(s * N + 1e-9)] * 30
        assert distance(x_s, x_t).tolist() == [int(t * N + 1e-9) - int(s * N + 1e-9)] * 30


@pytest.mark.parametrize(("s", "t"), [(1 / 3, 1.0), (2 / 3, 1.0), (1 / 3, 2 / 3)])
def test_marginals_are_kept_given_the_true_x0(s, t):
    """x_t through the bridge is x_s = F_s(x0): condition (*) of kexue.fm 9262, on images of three pixels."""
    corruption, count, levels = Edit(3), 20_000, 3
    keys = Keys(torch.arange(count), 0)
    x0 = values(torch.tensor([0, 1, 2]), levels).expand(count, 1, 1, 3)
    x_t = corruption.apply(x0, corruption.draw(x0.shape, keys), time(t))
    x_s = corruption.bridge(x_t, Posterior(x0), time(s), time(t)).sample(keys, 0)
    code = (tokens(x_s, levels).flatten(1) * levels ** torch.arange(3)).sum(dim=1)
    counts = code.bincount(minlength=27)
    grey = torch.arange(27)[:, None] // levels ** torch.arange(3) % levels
    differ = (grey != torch.arange(3)).sum(dim=1)
    possible = differ == round(3 * s)
    law = possible.double() / possible.sum()
    assert int(possible.sum()) == 3 * 2 ** round(3 * s)
    assert fits(counts / count, law, count)


@pytest.mark.parametrize("count", [1, 6, 11])
def test_pixels_are_taken_as_edited_where_the_estimate_speaks_against_them(count):
    """With log q(another level) - log q(the present one) largest, whatever x0 was.

    All pixels differ in that, from 25 to -30; t = count / N takes `count` of them, and s = 0 changes all of
    these, but where the estimate knows of no other level to the one that it thinks of besides.
    """
    torch.manual_seed(0)
    current, other = torch.randint(0, V, (40, *SHAPE)), torch.randint(1, V, (40, *SHAPE))
    other = (current + other) % V
    rank = torch.rand(40, N).argsort(dim=1).reshape(40, *SHAPE)
    odds = 5 * (rank - 6.0)
    logits = odds[..., None] * one_hot(other, V) - 50 * (1 - one_hot(current, V) - one_hot(other, V))
    x_t = values(current, V)
    law = Edit(V).bridge(x_t, Posterior(x_t, logits=logits), time(0.0), time(count / N))
    found = tokens(law.sample(Keys(torch.arange(40), 0), 0), V)
    assert torch.equal(found != current, rank >= N - count)
    known = (rank >= N - count) & (odds > -20)
    assert torch.equal(found[known], other[known])
    most = torch.where(rank > 6, other, current)
    assert torch.equal(tokens(law.mean, V)[rank != 6], most[rank != 6])  # at even odds there are two


def test_a_wrong_estimate_still_changes_exactly_so_many():
    """Even one that is certain of what is there: another level is drawn, any as likely."""
    x_t = images(5000)
    x_s = Edit(V).bridge(x_t, Posterior(x_t), time(0.25), time(1.0)).sample(Keys(torch.arange(5000), 0), 0)
    assert distance(x_s, x_t).tolist() == [9] * 5000
    moved = ((tokens(x_s, V) - tokens(x_t, V)) % V)[x_s != x_t]
    law = torch.tensor([0, 1, 1, 1]).double() / 3
    assert fits(one_hot(moved, V).double().mean(dim=0), law, len(moved))


def test_of_equally_sure_pixels_any_are_taken():
    """An estimate certain of another level everywhere: t = 1/2 takes any six of twelve, not the first."""
    count = 5000
    x_t = torch.full((count, *SHAPE), -1.0)
    x_s = Edit(V).bridge(x_t, Posterior(-x_t), time(0.0), time(0.5)).sample(Keys(torch.arange(count), 0), 0)
    assert distance(x_s, x_t).tolist() == [6] * count
    assert fits((x_s != x_t).double().mean(dim=0), torch.full(SHAPE, 0.5).double(), count)


def test_a_drawn_estimate_and_the_step_that_follows_are_drawn_apart():
    """Where the draw is the level that a pixel has, and it must change, any other is as likely.

    With uniforms in common with the draw, of .5 for level 0, the next levels would come and never the last.
    """
    count, keys = 20_000, Keys(torch.arange(20_000), 0)
    x_t = torch.full((count, 1, 1, 1), -1.0)
    logits = torch.tensor([0.5, 0.2, 0.2, 0.1]).log().expand(count, 1, 1, 1, 4)
    x0 = Apart()(Posterior(x_t, logits=logits), keys, 0, {})
    x_s = Edit(V).bridge(x_t, x0, time(0.0), time(1.0)).sample(keys, 0)
    same = x0.mean == x_t
    assert torch.equal(x_s[~same], x0.mean[~same])
    law = torch.tensor([0, 1, 1, 1]).double() / 3
    assert fits(one_hot(tokens(x_s[same], V), V).double().mean(dim=0), law, int(same.sum()))


def test_new_levels_are_drawn_from_the_estimate():
    """Given that they are not the present one: (.5, .3, .2) of levels 1, 2, 3 at level 0, whatever it has."""
    count = 20_000
    x_t = torch.full((count, 1, 1, 1), -1.0)
    logits = torch.tensor([0.6, 0.2, 0.12, 0.08]).log().expand(count, 1, 1, 1, 4)
    law = Edit(V).bridge(x_t, Posterior(x_t, logits=logits), time(0.0), time(1.0))
    new = tokens(law.sample(Keys(torch.arange(count), 0), 0), V).flatten()
    assert fits(one_hot(new, V).double().mean(dim=0), torch.tensor([0, 0.5, 0.3, 0.2]).double(), count)


@pytest.mark.parametrize("batch", [1, 7])
def test_steps_back_do_not_depend_on_their_batch(batch):
    x_t, index = images(20), torch.arange(20)
    torch.manual_seed(1)
    logits = torch.randn(20, *SHAPE, V)

    def step(rows):
        law = Edit(V).bridge(x_t[rows], Posterior(x_t[rows], logits=logits[rows]), time(0.4), time(0.8))
        return law.sample(Keys(rows, 3), 2)

    assert torch.equal(step(index), torch.cat([step(rows) for rows in index.split(batch)]))


def batches(x: torch.Tensor, size: int):
    for piece in x.split(size):
        yield Batch(piece, None, torch.arange(len(piece)))


def test_frequencies_are_counted_at_every_place():
    x0 = images(2000)
    fitted = Edit(V).fit(batches(x0, 300), Keys(torch.arange(1), 0))
    expected = one_hot(tokens(x0, V), V).mean(dim=0)
    (found,) = fitted.values()
    torch.testing.assert_close(found, expected)
    assert found.shape == (*SHAPE, V)
    (placeholder,) = Edit(V).placeholder(SHAPE).values()
    assert placeholder.shape == found.shape


def test_batches_without_end_are_read_until_5000_images():
    seen = []

    def endless():
        while True:
            seen.append(600)
            yield Batch(images(600), None, torch.arange(600))

    Edit(V).fit(endless(), Keys(torch.arange(1), 0))
    assert sum(seen) == 5400


def test_sampling_starts_from_the_law_of_what_is_edited_throughout():
    """(1 - p_i(v)) / (V - 1) at place i, which is that of F_1(x0); each within five standard errors."""
    law = torch.tensor([[1.0, 0.0, 0.0, 0.0], [0.1, 0.2, 0.3, 0.4]]).double()
    torch.manual_seed(0)
    count = 20_000
    x0 = values(torch.multinomial(law, count, replacement=True).T.reshape(count, 1, 1, 2), V)
    corruption, keys = Edit(V), Keys(torch.arange(count), 0)
    fitted = corruption.fit(batches(x0, count), keys)
    measured = one_hot(tokens(x0, V), V).double().mean(dim=0)[0, 0]
    expected = (1 - measured) / (V - 1)
    start = corruption.terminal(x0.shape, keys, fitted)
    gone = corruption.apply(x0, corruption.draw(x0.shape, keys), time(1.0))
    for x in (start, gone):
        assert fits(one_hot(tokens(x, V), V).double().mean(dim=0)[0, 0], expected, count)
    pair = (V * tokens(start, V)[..., 0] + tokens(start, V)[..., 1]).flatten()
    together = torch.outer(expected[0], expected[1]).flatten()
    assert fits(one_hot(pair, V * V).double().mean(dim=0), together, count)


def test_one_pixel_comes_back_with_its_law():
    """From its law at t = 1 by one step whose estimate is exact: p(x0 | x_1) is p(x0) but for x_1 itself."""
    law, count = torch.tensor([0.6, 0.3, 0.1, 0.0]), 40_000
    corruption, keys = Edit(V), Keys(torch.arange(count), 0)
    (name,) = corruption.placeholder((1, 1, 1))
    x = corruption.terminal((count, 1, 1, 1), keys, {name: law.reshape(1, 1, 1, V)})
    posterior = Posterior(x, logits=(law * (1 - one_hot(tokens(x, V), V))).log())
    x0 = corruption.bridge(x, posterior, time(0.0), time(1.0)).sample(keys, 0)
    assert fits(one_hot(tokens(x0, V), V).double().flatten(0, 3).mean(dim=0), law.double(), count)


def test_edits_that_are_none_are_refused():
    """Of two levels, the other one says what was there."""
    with pytest.raises(UserError, match="3 or more"):
        Edit(2)
    with pytest.raises(ValueError, match="not been fitted"):
        Edit(3).terminal((1, 1, 2, 2), Keys(torch.arange(1), 0), {})
