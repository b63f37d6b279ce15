"""Draws from categorical laws: exact frequencies, no category of probability zero, no sight of the batch."""

from __future__ import annotations

from fractions import Fraction
from itertools import accumulate

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from genbench.ops.categorical import categorical
from genbench.ops.random import Keys

ENDS = [2.0**-25, 2.0**-24, 0.5, 1 - 2.0**-24]
"""The least and the greatest uniforms of `Ambient` and `Keys`, and one between."""


@pytest.mark.parametrize("scale", [1.0, 1 / 7, 3e-30])
def test_evenly_spaced_uniforms_give_exact_frequencies(scale):
    """1,000 midpoints fall into categories of 0, 200, 500, 0 and 300 thousandths that many times each."""
    uniform = (torch.arange(1000, dtype=torch.float64) + 0.5) / 1000
    weights = scale * torch.tensor([0.0, 2.0, 5.0, 0.0, 3.0])
    drawn = categorical(weights.expand(1000, 5), uniform)
    assert drawn.bincount(minlength=5).tolist() == [0, 200, 500, 0, 300]


@given(
    weights=st.lists(st.integers(0, 2**20), min_size=1, max_size=12).filter(any),
    word=st.integers(1, 2**24 - 1),
)
def test_the_category_is_where_the_uniform_falls(weights, word):
    """The first whose running sum is above u times the whole, in fractions; multiples of 2^-24 are exact."""
    reached = Fraction(word, 2**24) * sum(weights)
    expected = next(i for i, end in enumerate(accumulate(weights)) if end > reached)
    drawn = categorical(torch.tensor(weights).float(), torch.tensor(word * 2.0**-24))
    assert drawn.item() == expected


@given(
    weights=st.lists(st.one_of(st.just(0.0), st.floats(2.0**-149, 2.0**100, width=32)), min_size=1).filter(
        any
    ),
    uniform=st.sampled_from(ENDS),
)
def test_what_has_no_probability_is_never_drawn(weights, uniform):
    """At the ends of the uniforms too, and for sums of any size, whose running sums are rounded."""
    drawn = categorical(torch.tensor(weights), torch.tensor(uniform))
    assert weights[drawn.item()] > 0


@pytest.mark.parametrize("uniform", ENDS)
@pytest.mark.parametrize(("weights", "only"), [([0.0, 1.0], 1), ([1.0, 0.0], 0), ([0.0, 0.0, 1.0, 0.0], 2)])
@pytest.mark.parametrize("scale", [1.0, 1e30, 2.0**-149, 5e-324])
def test_what_is_certain_is_always_drawn(scale, weights, only, uniform):
    """Where the sum itself is the smallest number there is, its products with uniforms round to its ends."""
    dtype = torch.float64 if scale < 2.0**-149 else torch.float32
    law = torch.tensor(weights, dtype=dtype) * scale
    assert categorical(law, torch.tensor(uniform)).item() == only


def test_the_last_of_many_equal_ones_is_reached_and_not_passed():
    """Of 256 equal shares, whose sums are rounded, the least uniform falls into the first."""
    law = torch.full((2, 256), 0.1)
    drawn = categorical(law, torch.tensor([2.0**-24, 1 - 2.0**-24]))
    assert drawn.tolist() == [0, 255]


def test_small_shares_add_up_beside_a_large_one():
    """1 and 200 times 2^-25, which float32 would lose; 1 - 2^-23 of all is 1 and just below 196 * 2^-25."""
    law = torch.tensor([1.0] + 200 * [2.0**-25])
    assert categorical(law, torch.tensor(1 - 2.0**-23)).item() == 196


def test_frequencies_of_keyed_draws():
    """40,000 draws, every frequency within five standard errors."""
    law = torch.tensor([0.05, 0.0, 0.6, 0.35])
    uniform = Keys(torch.arange(10_000), 0).uniform((4,))
    drawn = categorical(law.expand(10_000, 4, 4), uniform)
    assert drawn.dtype == torch.int64
    for level, share in enumerate(law.tolist()):
        found = float((drawn == level).double().mean())
        assert abs(found - share) <= 5 * (share * (1 - share) / drawn.numel()) ** 0.5


@pytest.mark.parametrize("batch", [1, 7, 64])
def test_draws_do_not_depend_on_their_batch(batch):
    torch.manual_seed(0)
    law, uniform = torch.rand(64, 3, 5, 17) ** 4, torch.rand(64, 3, 5)
    pieces = zip(law.split(batch), uniform.split(batch), strict=True)
    apart = torch.cat([categorical(p, u) for p, u in pieces])
    assert torch.equal(categorical(law, uniform), apart)
