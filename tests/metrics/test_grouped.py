"""Moments kept by group: of the whole, of each group, of any union; whatever the batches or ranks."""

from __future__ import annotations

import pytest
import torch
from features import normal, reduce
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from genbench.metrics.grouped import GroupedMoments, dealt, resamplings
from genbench.metrics.moments import Moments

N, D, G = 157, 5, 7


def same(found: Moments, expected: Moments) -> None:
    assert found.n == expected.n
    torch.testing.assert_close(found.mean, expected.mean, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(found.scatter, expected.scatter, rtol=1e-12, atol=1e-10)


def filled(features: Tensor, owner: Tensor, index: Tensor, size: int) -> GroupedMoments:
    moments = GroupedMoments(G, D)
    for part in index.split(size):
        moments.update(features[part], owner[part])
    return moments


@settings(max_examples=20)
@given(
    size=st.integers(1, N),
    seed=st.integers(0, 9),
    weights=st.lists(st.integers(0, 3), min_size=G, max_size=G),
)
def test_unions_are_those_of_the_images(size: int, seed: int, weights: list[int]) -> None:
    features, owner = normal(N, D, seed, mean=50.0), dealt(N, G)
    order = torch.randperm(N, generator=torch.Generator().manual_seed(seed))
    whole = filled(features, owner, order, size)
    first, second = (filled(features, owner, part, size) for part in order.split([100, N - 100]))
    second.merge(first)
    copies = torch.cat([features[:0], *(features[owner == g] for g in range(G) for _ in range(weights[g]))])
    for moments in (whole, second):
        same(moments.union(), Moments.of(features))
        same(moments.only(3), Moments.of(features[owner == 3]))
        if len(copies):
            same(moments.union(torch.tensor(weights)), Moments.of(copies))


def test_ranks_reduce_to_the_whole_even_one_without_images() -> None:
    features, owner = normal(N, D, mean=50.0), dealt(N, G)
    shares = (torch.arange(60), torch.arange(60, N), torch.arange(0))
    ranks = [filled(features, owner, share, 13) for share in shares]
    reduce(ranks)
    for rank in ranks:
        same(rank.union(), Moments.of(features))
        same(rank.only(2), Moments.of(features[owner == 2]))


def test_images_are_dealt_evenly_and_not_in_order() -> None:
    owner = dealt(1003, 10)
    assert owner.bincount().tolist() == [100, 100, 100, 101, 100, 100, 101, 100, 100, 101]
    assert len(owner[:100].unique()) == 10


def test_resamplings_draw_every_group_equally_often() -> None:
    draws = resamplings(20, 500)
    assert draws.shape == (500, 20)
    shares = draws.flatten().bincount(minlength=20) / 500
    assert float((shares - 1).abs().max()) < 4 / 500**0.5
    assert torch.equal(draws, resamplings(20, 500))


def test_what_is_not_finite_is_refused() -> None:
    with pytest.raises(ValueError, match="NaN"):
        GroupedMoments(2, 3).update(torch.full((4, 3), torch.nan), torch.zeros(4, dtype=torch.int64))
