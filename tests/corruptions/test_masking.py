"""Masks: exact counts, nested in time, uniform among subsets, and revealed by the law they were laid with."""

from __future__ import annotations

from itertools import combinations

import pytest
import torch
import torch.nn.functional as F

from genbench.contracts import Posterior, UserError
from genbench.corruptions.masking import HIDDEN, Counted, Growing, Independent, Mask, ranked
from genbench.corruptions.rules import Bridge, Mixed
from genbench.corruptions.tokens import tokens, values
from genbench.ops.random import Keys
from genbench.samplers.draws import Apart
from genbench.samplers.grids import Uniform
from genbench.samplers.restore import Restore

ORDERS = {
    "counted": Counted(),
    "counted patches": Counted(patch=3),
    "counted, all channels": Counted(shared=True),
    "independent": Independent(),
    "independent patches, all channels": Independent(patch=2, shared=True),
    "growing": Growing(shared=True),
    "growing patches": Growing(patch=2),
}
every_order = pytest.mark.parametrize("order", ORDERS.values(), ids=ORDERS.keys())
CHI_SQUARE = {3: 25.9, 5: 30.9, 8: 37.3, 9: 39.3}
"""By degrees of freedom, what is exceeded once in 100,000 seeds."""


def time(value: float) -> torch.Tensor:
    return torch.tensor(value, dtype=torch.float64)


def images(count: int, shape, seed: int = 0) -> torch.Tensor:
    """Even in [-1, 1], float32."""
    return 2 * Keys(torch.arange(count), seed).uniform(shape, step=99) - 1


def masked(order, t, count: int, shape, seed: int = 1) -> torch.Tensor:
    """Which pixels are hidden at t, bool [count, C, H, W]."""
    mask, x0 = Mask(order), torch.zeros(count, *shape)
    noise = mask.draw(x0.shape, Keys(torch.arange(count), seed))
    return mask.apply(x0, noise, t) == HIDDEN


def revealed(order, hidden, s: float, t: float, seed: int = 2) -> torch.Tensor:
    """Which pixels are hidden at s of those `hidden` at t, by one draw of the bridge."""
    x0 = torch.zeros(hidden.shape)
    law = Bridge().law(Mask(order), x0.masked_fill(hidden, HIDDEN), Posterior(x0), time(s), time(t))
    return law.sample(Keys(torch.arange(len(hidden)), seed), 0) == HIDDEN


def chi_square(subsets: torch.Tensor, size: int) -> float:
    """Of counts of all subsets of `size`, against an even law; subsets: bool [count, N]."""
    length = subsets.shape[1]
    known = torch.zeros(0, length, dtype=torch.bool)
    for chosen in combinations(range(length), size):
        known = torch.cat((known, F.one_hot(torch.tensor(chosen), length).sum(0)[None].bool()))
    same = (subsets[:, None] == known).all(dim=2)
    assert same.any(dim=1).all()
    expected = len(subsets) / len(known)
    return float(((same.sum(dim=0) - expected) ** 2 / expected).sum())


# ------------------------------------------------------------------------------------------ laying the mask


@every_order
def test_masks_grow_from_nothing_to_all(order):
    mask, x0 = Mask(order), images(20, (2, 7, 5))
    noise = mask.draw(x0.shape, Keys(torch.arange(20), 1))
    assert torch.equal(mask.apply(x0, noise, time(0)), x0)
    assert (mask.apply(x0, noise, time(1)) == HIDDEN).all()
    before = torch.zeros_like(x0, dtype=torch.bool)
    for t in torch.linspace(0, 1, 24, dtype=torch.float64):
        x_t = mask.apply(x0, noise, t)
        hidden = x_t == HIDDEN
        assert (hidden | ~before).all()  # what was hidden stays so
        assert torch.equal(x_t[~hidden], x0[~hidden])
        before = hidden


@every_order
def test_every_image_is_masked_at_a_time_of_its_own(order):
    mask, x0 = Mask(order), images(4, (2, 7, 5))
    noise = mask.draw(x0.shape, Keys(torch.arange(4), 1))
    times = torch.tensor([0, 0.25, 0.6, 1], dtype=torch.float64)
    together = mask.apply(x0, noise, times)
    for i, t in enumerate(times):
        assert torch.equal(together[i], mask.apply(x0[i : i + 1], noise[i : i + 1], t)[0])


@pytest.mark.parametrize("shape", [(1, 1, 5), (1, 7, 7), (3, 28, 28), (3, 64, 64)])
@pytest.mark.parametrize("order", [Counted(), Growing()])
def test_exactly_the_counted_pixels_are_hidden(order, shape):
    """floor(t N), also where t N is a whole number but for a rounding of float32."""
    total = torch.Size(shape).numel()
    mask, x0 = Mask(order), torch.zeros(1, *shape)
    noise = mask.draw(x0.shape, Keys(torch.arange(1), 1))
    for count in {*range(1, min(total, 50)), total // 3, total // 2, total - 1, total}:
        exact = count / total
        for t, expected in ((exact, count), (exact - 2e-7, count), (exact - 0.1 / total, count - 1)):
            assert int((mask.apply(x0, noise, time(t)) == HIDDEN).sum()) == expected


@pytest.mark.parametrize("size", [1, 2, 3, 4])
def test_counted_masks_are_uniform_among_subsets(size):
    """Chi-square over all subsets of five pixels, of 4,000 masks."""
    hidden = masked(Counted(), time(size / 5), 4000, (1, 1, 5)).flatten(1)
    assert chi_square(hidden, size) < (28.5 if size in (1, 4) else CHI_SQUARE[9])


def test_independent_masks_hide_with_probability_t():
    """Alone, and any two together with probability t^2: within five standard errors of 8,000 masks."""
    for t in (0.1, 0.5, 0.9):
        hidden = masked(Independent(), time(t), 8000, (2, 1, 3)).flatten(1).double()
        both = hidden.T @ hidden / 8000
        expected = torch.full((6, 6), t**2, dtype=torch.float64).fill_diagonal_(t)
        errors = (expected * (1 - expected) / 8000).sqrt()
        assert ((both - expected).abs() < 5 * errors).all()


def in_cells(hidden: torch.Tensor, patch: int) -> torch.Tensor:
    """The upper left pixel of every patch, after checking that the others are as it is."""
    cells = hidden[:, :, ::patch, ::patch]
    for i in range(hidden.shape[-2]):
        for j in range(hidden.shape[-1]):
            assert torch.equal(hidden[..., i, j], cells[..., i // patch, j // patch])
    return cells


@pytest.mark.parametrize("patch", [1, 2, 3, 8])
@pytest.mark.parametrize("shared", [False, True])
def test_patches_are_hidden_whole_also_at_edges(patch, shared):
    """7 x 5 pixels are no whole number of patches: those at the edges are smaller."""
    order, rows, columns = Counted(patch, shared), -(-7 // patch), -(-5 // patch)
    total = rows * columns * (1 if shared else 3)
    for count in (1, total // 2, total):
        hidden = masked(order, time(count / total), 200, (3, 7, 5))
        cells = in_cells(hidden, patch)
        assert cells.shape == (200, 3, rows, columns)
        if shared:
            assert torch.equal(hidden, hidden[:, :1].expand_as(hidden))
            cells = cells[:, :1]
        assert (cells.flatten(1).sum(dim=1) == count).all()
    if not shared:
        assert not torch.equal(*masked(order, time(0.5), 200, (3, 7, 5))[:, :2].unbind(dim=1))


def test_patches_have_pixels():
    for patch in (0, "a", 1.5):
        with pytest.raises(UserError, match=rf"order\.patch={patch}"):
            Counted(patch=patch)


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 8, 12)])
def test_a_patch_that_is_larger_than_the_image_is_refused(shape):
    for order in (Counted(patch=8), Independent(patch=3)):
        Mask(order).check_shape(shape)
    with pytest.raises(UserError, match=r"Type corruption\.order\.patch=4"):
        Mask(Counted(patch=9)).check_shape(shape)


@pytest.mark.parametrize("shape", [(1, 6, 5), (2, 3, 7)])
def test_a_growing_hole_is_one_piece_and_takes_the_nearest_first(shape):
    count, (channels, height, width) = 50, shape
    total = channels * height * width
    grid = torch.cartesian_prod(torch.arange(height), torch.arange(width)).double()
    first = masked(Growing(), time(1 / total), count, shape).any(dim=1).flatten(1)
    assert (first.sum(dim=1) == 1).all()
    away = torch.cdist(grid[first.double().argmax(dim=1)], grid).reshape(count, 1, height, width)
    for number in range(1, total):
        hidden = masked(Growing(), time(number / total), count, shape)
        furthest = away.expand_as(hidden).masked_fill(~hidden, 0).flatten(1).amax(dim=1)
        nearest = away.expand_as(hidden).masked_fill(hidden, torch.inf).flatten(1).amin(dim=1)
        assert (furthest <= nearest).all()
        # Spread from the centre through hidden neighbours: up, down, left and right, and the other channels.
        hole, found = hidden.any(dim=1, keepdim=True), first.reshape(count, 1, height, width)
        for _ in range(height + width):
            near = [
                F.max_pool2d(found.float(), size, 1, (size[0] // 2, size[1] // 2))
                for size in ((3, 1), (1, 3))
            ]
            found = hole & (near[0] + near[1] > 0)
        assert torch.equal(found, hole)


def test_a_hole_starts_anywhere_alike():
    """Chi-square over the 9 pixels, of 3,600 images."""
    first = masked(Growing(), time(1 / 9), 3600, (1, 3, 3)).flatten(1)
    assert chi_square(first, 1) < CHI_SQUARE[8]


def test_ties_of_a_growing_hole_are_settled_by_chance():
    """Its second pixel is any of the four neighbours: chi-square, of images that start in the middle."""
    start, second = (masked(Growing(), time(count / 9), 9000, (1, 3, 3)).flatten(1) for count in (1, 2))
    added = (second & ~start)[start[:, 4]]
    assert len(added) > 800
    counts = added.sum(dim=0)[[1, 3, 5, 7]].double()
    assert counts.sum() == len(added)
    assert float(((counts - len(added) / 4) ** 2 / (len(added) / 4)).sum()) < CHI_SQUARE[3]


def test_ties_with_the_first_cell_are_settled_by_chance_too():
    """Its uniform chose the centre: of the four corners around it, as far as each other, any is next."""
    start = masked(Growing(), time(1 / 9), 9000, (1, 3, 3)).flatten(1)
    before, after = (masked(Growing(), time(count / 9), 9000, (1, 3, 3)).flatten(1) for count in (5, 6))
    added = (after & ~before)[start[:, 4]]
    counts = added.sum(dim=0)[[0, 2, 6, 8]].double()
    assert counts.sum() == len(added) > 800
    assert float(((counts - len(added) / 4) ** 2 / (len(added) / 4)).sum()) < CHI_SQUARE[3]


def test_equal_numbers_are_ranked_by_their_places():
    """Which a GPU's sort does if it is told to."""
    keys = (torch.arange(3000) % 2).float().expand(2, 3000)
    ranks = ranked(keys.to("cuda" if torch.cuda.is_available() else "cpu")).cpu()
    expected = torch.stack((torch.arange(1, 1501), torch.arange(1501, 3001)), dim=1).flatten() / 3000
    torch.testing.assert_close(ranks, expected.expand(2, -1))


def test_thresholds_of_independent_masks_are_not_rounded():
    """A share t is hidden at the least of times too."""
    mask, t = Mask(Independent()), 1e-6
    hidden = mask.apply(torch.zeros(1, 1, 1, 3), torch.tensor([0.5e-6, 0.99e-6, 1.5e-6]), time(t)) == HIDDEN
    assert hidden.flatten().tolist() == [True, True, False]


def test_times_of_training_are_held_above_a_ten_thousandth():
    """Where masks weigh by 1 / t, 10,000 at most (Shi et al. 2024); times are still spread evenly."""
    t = Mask(Independent()).draw_times(50_000, torch.device("cpu"))
    assert float(t.min()) == 1e-4
    assert float(t.mean()) == pytest.approx(0.5, abs=1e-4)
    assert float((t < 0.3).double().mean()) == pytest.approx(0.3, abs=1e-4)
    assert float(Mask(Counted(), 5).draw_times(100, torch.device("cpu")).min()) == 0.2


# -------------------------------------------------------------------------------------------- taking it away


@pytest.mark.parametrize(
    "order", [Counted(), Counted(patch=3), Counted(patch=2, shared=True), Independent(), Independent(3, True)]
)
def test_what_stays_hidden_was_hidden(order):
    hidden = masked(order, time(0.8), 50, (3, 7, 5))
    left = revealed(order, hidden, 0.4, 0.8)
    assert (hidden | ~left).all()
    assert not torch.equal(left, hidden)
    in_cells(left, order.patch)
    if order.shared:
        assert torch.equal(left, left[:, :1].expand_as(left))
    assert not revealed(order, hidden, 0.0, 0.8).any()
    assert torch.equal(revealed(order, hidden, 0.8, 0.8), hidden)


@pytest.mark.parametrize("order", [Counted(), Counted(patch=3), Counted(patch=2, shared=True)])
def test_counted_masks_go_by_count(order):
    """From floor(t N) hidden cells to floor(s N), at every step of a chain; times are off by a rounding."""
    cells = order.cells(torch.zeros(1, 3, 7, 5)).numel()
    hidden = torch.ones(20, 3, 7, 5, dtype=torch.bool)
    for count in reversed(range(cells)):
        s, t = max(count / cells - 2e-7, 0.0), (count + 1) / cells - 2e-7
        hidden = revealed(order, hidden, s, t, seed=count)
        assert (order.cells(hidden).flatten(1).sum(dim=1) == count).all()


def test_counted_masks_shrink_to_any_subset_alike():
    """Chi-square over the 6 pairs among four hidden pixels of five, of 6,000 images, for every four."""
    hidden = masked(Counted(), time(0.8), 6000, (1, 1, 5))
    left = revealed(Counted(), hidden, 0.4, 0.8).flatten(1)
    for shown in range(5):
        chosen = ~hidden.flatten(1)[:, shown]
        assert int(chosen.sum()) > 1000
        others = [i for i in range(5) if i != shown]
        assert chi_square(left[chosen][:, others], 2) < CHI_SQUARE[5]
    # And, whatever was hidden: condition (*) of kexue.fm 9262.
    assert chi_square(left, 2) < CHI_SQUARE[9]


def test_independent_masks_compose():
    """A pixel hidden at t is so at s with probability s / t, straight or by way of u (Shi et al. 2024):
    within five standard errors of 60,000 pixels that are all hidden at first."""
    hidden, (s, u, t) = torch.ones(1000, 1, 6, 10, dtype=torch.bool), (0.2, 0.5, 0.9)
    direct = revealed(Independent(), hidden, s, t, seed=1)
    halfway = revealed(Independent(), hidden, u, t, seed=2)
    twice = revealed(Independent(), halfway, s, u, seed=3)
    for found, expected in ((direct, s / t), (halfway, u / t), (twice, s / t)):
        share = float(found.double().mean())
        assert abs(share - expected) < 5 * (expected * (1 - expected) / hidden.numel()) ** 0.5


def test_what_is_shown_is_kept_and_the_rest_is_the_estimates():
    """Even where the estimate says otherwise of a pixel that can be seen."""
    mask, x0, other = Mask(Counted()), images(50, (2, 3, 4)), images(50, (2, 3, 4), seed=1)
    keys = Keys(torch.arange(50), 1)
    x_t = mask.apply(x0, mask.draw(x0.shape, keys), time(0.75))
    known = mask.known(x_t)
    assert torch.equal(known, x_t != HIDDEN)
    x_s = mask.bridge(x_t, Posterior(other), time(0.25), time(0.75)).sample(keys, 0)
    shown = x_s != HIDDEN
    assert (shown.flatten(1).sum(dim=1) == 18).all()
    assert torch.equal(x_s[known], x0[known])
    assert torch.equal(x_s[shown & ~known], other[shown & ~known])


@pytest.mark.parametrize("rule", [Bridge(), Mixed(1.0)], ids=str)
def test_estimates_beyond_black_are_not_hidden_again(rule):
    """What is drawn with noise may lie below -1.5, nearer to what hides pixels than to any level."""
    x_t, wild = torch.full((50, 1, 4, 4), HIDDEN), torch.full((50, 1, 4, 4), -1.9)
    x_s = rule.law(Mask(Counted()), x_t, Posterior(wild), time(0.25), time(1.0)).sample(
        Keys(torch.arange(50), 0), 0
    )
    assert (Mask(Counted()).known(x_s).flatten(1).sum(dim=1) == 12).all()
    assert set(x_s.unique().tolist()) == {HIDDEN, -1.0}


def test_every_step_reveals_pixels_of_its_own():
    x = torch.full((50, 1, 4, 4), HIDDEN)
    law = Mask(Counted()).bridge(x, Posterior(torch.zeros_like(x)), time(0.5), time(1))
    keys = Keys(torch.arange(50), 0)
    assert torch.equal(law.sample(keys, 0), law.sample(keys, 0))
    assert not torch.equal(law.sample(keys, 0), law.sample(keys, 1))


def test_a_growing_hole_has_no_bridge():
    x = torch.full((1, 1, 4, 4), HIDDEN)
    law = Mask(Growing()).bridge(x, Posterior(torch.zeros_like(x)), time(0.5), time(1))
    with pytest.raises(UserError, match="rule=fresh"):
        law.sample(Keys(torch.arange(1), 0), 0)


def test_the_fresh_rule_masks_the_estimate_anew():
    mask, x0 = Mask(Counted()), images(4000, (1, 1, 5))
    x_t = torch.full_like(x0, 0.5).masked_fill(torch.arange(5) < 3, HIDDEN)
    found = (
        Mixed(1.0).law(mask, x_t, Posterior(x0), time(0.4), time(0.6)).sample(Keys(torch.arange(4000), 1), 0)
    )
    shown = found != HIDDEN
    assert torch.equal(found[shown], x0[shown])
    assert chi_square(~shown.flatten(1), 2) < CHI_SQUARE[9]


def test_a_mask_is_not_told_from_what_it_hides():
    with pytest.raises(UserError, match="rule=bridge"):
        Mixed(0.0).check(Mask(Counted()), time(0.5), time(1.0))


@every_order
@pytest.mark.parametrize("batch", [1, 7])
def test_masks_do_not_depend_on_their_batch(order, batch):
    mask, index = Mask(order), torch.arange(20)
    draw = lambda keys: mask.draw((keys.batch, 2, 7, 5), keys)
    apart = torch.cat([draw(Keys(piece, 3)) for piece in index.split(batch)])
    assert torch.equal(draw(Keys(index, 3)), apart)


# ----------------------------------------------------------------------------------------------- whole runs

WORDS = torch.tensor([[0, 1, 2, 0, 2], [1, 1, 0, 2, 2]])
"""A language of two words of five letters, of an alphabet of three."""
SHARES = torch.tensor([0.7, 0.3])


class Reader:
    """The exact posterior of every letter, given those that are shown; it counts what is hidden."""

    image_shape = (1, 1, 5)

    def __init__(self):
        self.corruption, self.hidden = Mask(Counted()), []

    def denoise(self, x_t, t, labels=None):
        shown = self.corruption.known(x_t).flatten(1)
        self.hidden.append((~shown).sum(dim=1))
        agrees = ((tokens(x_t, 3).flatten(1)[:, None] == WORDS) | ~shown[:, None]).all(dim=2)
        words = agrees * SHARES
        words = words / words.sum(dim=1, keepdim=True)
        law = torch.einsum("bw,wlv->blv", words, F.one_hot(WORDS, 3).float())
        return Posterior(torch.zeros_like(x_t), logits=law.log()[:, None, None])


def read(steps: int, count: int = 4000) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """Words drawn, int64 [count, 5], and how many letters were hidden before every step."""
    model = Reader()
    sampler = Restore(steps, Uniform(), Bridge(), draw=Apart())
    return tokens(sampler(model, Keys(torch.arange(count), 0)).images, 3).flatten(1), model.hidden


def test_one_letter_a_step_draws_the_words_of_the_language():
    """Any order of reading is exact (kexue.fm 9271): nothing but words, in their shares within five standard
    errors, and one letter fewer is hidden at every step."""
    drawn, hidden = read(steps=5)
    assert [each.unique().tolist() for each in hidden] == [[5], [4], [3], [2], [1]]
    same = (drawn[:, None] == WORDS).all(dim=2)
    assert same.any(dim=1).all()
    assert abs(float(same[:, 0].double().mean()) - 0.7) < 5 * (0.7 * 0.3 / 4000) ** 0.5


def test_all_letters_at_once_are_drawn_apart():
    """One step draws the three letters in which the words differ independently: a word comes out with
    probability .7^3 + .3^3, within five standard errors."""
    drawn, _ = read(steps=1)
    share = float((drawn[:, None] == WORDS).all(dim=2).any(dim=1).double().mean())
    expected = 0.7**3 + 0.3**3
    assert abs(share - expected) < 5 * (expected * (1 - expected) / 4000) ** 0.5


@pytest.mark.parametrize("batch", [1, 7])
def test_images_do_not_depend_on_their_batch(batch):
    sampler, index = Restore(5, Uniform(), Bridge(), draw=Apart()), torch.arange(20)
    apart = torch.cat([sampler(Reader(), Keys(piece, 3)).images for piece in index.split(batch)])
    assert torch.equal(sampler(Reader(), Keys(index, 3)).images, apart)


# ------------------------------------------------------------------------------------------------ the bound


def test_the_bound_counts_hidden_pixels_at_the_rate_they_are_revealed():
    """-log p(x0 | x_t) / t where hidden, nothing elsewhere (Shi et al. 2024, eq. 5)."""
    logits = Keys(torch.arange(2), 0).normal((1, 2, 3, 4))
    grey = torch.tensor([[0, 1, 2], [3, 0, 1]])
    x0 = values(grey, 4).expand(2, 1, 2, 3)
    hidden = torch.tensor([[True, True, False], [False, True, False]])
    t = torch.tensor([0.25, 0.5], dtype=torch.float64)
    x_t, posterior = x0.masked_fill(hidden, HIDDEN), Posterior(x0, logits=logits)
    found = Mask(Independent()).bound(x0, posterior, x_t, t, Bridge())
    p = logits.double().softmax(dim=-1)
    for b in range(2):
        for i in range(2):
            for j in range(3):
                expected = -float(p[b, 0, i, j, grey[i, j]].log() / t[b]) if hidden[i, j] else 0.0
                assert float(found[b, 0, i, j]) == pytest.approx(expected, rel=1e-5)
    assert not Mask(Independent()).prior(x0).any()


@pytest.mark.parametrize("steps", [1, 5, 12])
@pytest.mark.parametrize("order", [Counted(), Counted(patch=2), Independent()])
def test_knowing_nothing_costs_the_logarithm_of_the_levels(order, steps):
    """log V for every pixel, in the mean over all times; of counted masks exactly, whatever the masks."""
    mask, x0, logits = Mask(order, steps), torch.zeros(4000, 1, 3, 4), torch.zeros(4000, 1, 3, 4, 3)
    noise = mask.draw(x0.shape, Keys(torch.arange(4000), 0))
    nats = torch.zeros(4000)
    for t in torch.arange(1, steps + 1).double() / steps:
        bound = mask.bound(x0, Posterior(x0, logits=logits), mask.apply(x0, noise, t), t, Bridge())
        nats += bound.flatten(1).mean(dim=1) / steps
    expected = torch.tensor(3.0).log()
    if isinstance(order, Counted) and order.patch == 1:
        torch.testing.assert_close(nats, expected.expand(4000))
    assert abs(float(nats.mean() - expected)) < 5 * float(nats.std()) / 4000**0.5 + 1e-6
