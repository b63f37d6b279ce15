"""Streaming moments: the same as numpy's in one piece, whatever the batches, order, shards or offset."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load, save
from torch import Tensor

from genbench.metrics.moments import Moments

N, D = 301, 7


def draw(seed: int = 0, offset: float = 0.0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(D, D, generator=generator, dtype=torch.float64)
    return torch.randn(N, D, generator=generator, dtype=torch.float64) @ mixing + offset


def streamed(features: Tensor, sizes: list[int]) -> Moments:
    moments = Moments()
    for part in features.split(sizes):
        moments.update(part)
    return moments


def difference(a: Moments, b: Moments) -> float:
    """Largest relative difference of mean and covariance."""
    scale = b.covariance.abs().max()
    return max(
        float((a.mean - b.mean).abs().max() / scale.sqrt()),
        float((a.covariance - b.covariance).abs().max() / scale),
    )


def test_moments_are_numpys() -> None:
    features = draw()
    moments = streamed(features, [1, 100, 200])
    np.testing.assert_allclose(moments.mean, features.numpy().mean(axis=0), rtol=0, atol=1e-12)
    np.testing.assert_allclose(moments.covariance, np.cov(features.numpy(), rowvar=False), rtol=0, atol=1e-11)
    assert moments.n == N


@settings(max_examples=25, deadline=None)
@given(cuts=st.lists(st.integers(0, N), max_size=6), shuffle=st.booleans())
def test_batches_and_order_do_not_matter(cuts: list[int], shuffle: bool) -> None:
    features = draw()
    bounds = [0, *sorted(cuts), N]
    order = torch.randperm(N, generator=torch.Generator().manual_seed(1)) if shuffle else torch.arange(N)
    parts = streamed(features[order], [b - a for a, b in pairwise(bounds)])
    assert difference(parts, Moments.of(features)) < 1e-12


@settings(max_examples=20, deadline=None)
@given(st.permutations(range(5)))
def test_shards_merge_in_any_order(order: list[int]) -> None:
    features = draw()
    shards = [Moments.of(part) for part in features.split([3, 150, 1, 100, 47])]
    merged = Moments()
    for place in order:
        merged.merge(shards[place])
    assert difference(merged, Moments.of(features)) < 1e-12


def test_a_large_offset_does_not_cancel() -> None:
    # Sums of uncentred products would lose 2 log10(1e7) = 14 of float64's 16 digits here.
    near, far = Moments.of(draw()), streamed(draw(offset=1e7), [100, 100, 101])
    assert float((near.covariance - far.covariance).abs().max() / near.covariance.abs().max()) < 1e-7


def test_ranks_reduce_to_the_whole_even_one_without_images() -> None:
    features = draw()
    ranks = [streamed(part, [len(part)]) for part in features.split([120, 181])] + [Moments()]
    # The collective of three ranks, played in lock step: each round adds what every rank put in.
    rounds: list[list[list[Tensor]]] = [[], []]
    for rank in ranks:
        probe = Moments()
        probe.merge(rank)
        probe.reduce(
            lambda tensors: rounds[0].append([t.clone() for t in tensors]) if len(tensors) == 2 else None, D
        )
    first = [torch.stack(column).sum(0) for column in zip(*rounds[0])]
    for rank in ranks:
        probe = Moments()
        probe.merge(rank)

        def second(tensors: list[Tensor]) -> None:
            if len(tensors) == 2:
                for tensor, total in zip(tensors, first):
                    tensor.copy_(total)
            else:
                rounds[1].append([t.clone() for t in tensors])

        probe.reduce(second, D)
    scatter = torch.stack([tensors[0] for tensors in rounds[1]]).sum(0)
    for rank in ranks:

        def third(tensors: list[Tensor]) -> None:
            for tensor, total in zip(tensors, first if len(tensors) == 2 else [scatter]):
                tensor.copy_(total)

        rank.reduce(third, D)
        assert rank.n == N
        assert difference(rank, Moments.of(features)) < 1e-12


def test_one_rank_reduces_to_itself() -> None:
    moments = streamed(draw(), [200, 101])
    moments.reduce(lambda tensors: None, D)
    assert difference(moments, Moments.of(draw())) < 1e-12


def test_state_survives_a_file_bit_for_bit() -> None:
    moments = Moments.of(draw().float())
    again = Moments.from_state(load(save(moments.state_dict())))
    assert again.sha256 == moments.sha256
    assert torch.equal(again.scatter, moments.scatter)
    again.update(draw(1))
    assert again.sha256 != moments.sha256


def test_single_precision_features_are_summed_in_double() -> None:
    features = draw().float()
    moments = streamed(features, [N])
    exact = np.cov(features.double().numpy(), rowvar=False)
    np.testing.assert_allclose(moments.covariance, exact, rtol=0, atol=1e-12 * np.abs(exact).max())


def test_what_has_no_moments_is_refused() -> None:
    moments = Moments()
    with pytest.raises(ValueError, match="no features"):
        _ = moments.mean
    with pytest.raises(ValueError, match="NaN"):
        moments.update(torch.tensor([[1.0, math.nan]]))
    with pytest.raises(ValueError, match=r"\[batch, dimension\]"):
        moments.update(torch.zeros(3))
    moments.update(torch.zeros(1, 3))
    with pytest.raises(ValueError, match="at least 2"):
        _ = moments.covariance
    with pytest.raises(ValueError, match="do not join"):
        moments.update(torch.zeros(1, 4))
    with pytest.raises(ValueError, match="n, mean and scatter"):
        Moments.from_state({"mean": torch.zeros(3)})
    with pytest.raises(ValueError, match="float64"):
        Moments.from_state({"n": torch.tensor([2]), "mean": torch.zeros(3), "scatter": torch.zeros(3, 3)})
