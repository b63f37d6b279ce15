"""Batches as a function of their number: permutations, ranks, resumption, flips, scaling."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from picture_files import random_images

from genbench.contracts import UserError
from genbench.data.batches import Batches
from genbench.data.images import ImageSet, canonical


def toy(count: int, labelled: bool = True) -> ImageSet:
    labels = np.arange(count) % 3 if labelled else None
    return canonical(
        "toy",
        "train",
        random_images(count, channels=3, resolution=5),
        labels,
        classes=3 if labelled else 0,
        levels=256,
        provenance={},
    )


def order(batches: Batches, numbers: range) -> torch.Tensor:
    return torch.cat([batches(number).index for number in numbers])


@settings(max_examples=40, deadline=None)
@given(size=st.integers(1, 23), batch=st.integers(1, 30), seed=st.integers(0, 2**40))
def test_every_epoch_is_a_permutation_whatever_the_batch_size(size: int, batch: int, seed: int) -> None:
    epochs = 4
    positions = order(Batches(toy(size), batch, seed, flip=True), range(-(-epochs * size // batch)))
    for epoch in range(epochs):
        assert sorted(positions[epoch * size : (epoch + 1) * size].tolist()) == list(range(size))


def test_epochs_and_seeds_differ() -> None:
    images = toy(200)
    first, second = order(Batches(images, 100, 0, flip=False), range(4)).chunk(2)
    assert not torch.equal(first, second)
    assert not torch.equal(first, order(Batches(images, 100, 1, flip=False), range(2)))


@settings(max_examples=40, deadline=None)
@given(
    size=st.integers(1, 23),
    share=st.integers(1, 7),
    world=st.integers(1, 4),
    number=st.integers(0, 50),
    labelled=st.booleans(),
)
def test_the_ranks_together_are_the_single_rank_batch(
    size: int, share: int, world: int, number: int, labelled: bool
) -> None:
    images = toy(size, labelled)
    whole = Batches(images, share * world, 3, flip=True)(number)
    parts = [Batches(images, share * world, 3, True, rank, world)(number) for rank in range(world)]
    assert torch.equal(torch.cat([part.images for part in parts]), whole.images)
    assert torch.equal(torch.cat([part.index for part in parts]), whole.index)
    if labelled:
        assert torch.equal(torch.cat([part.labels for part in parts]), whole.labels)
    else:
        assert whole.labels is None


@pytest.mark.parametrize("batch", [4, 7, 50])
def test_jumping_to_a_batch_equals_iterating_to_it(batch: int) -> None:
    images = toy(11)
    iterated = Batches(images, batch, 5, flip=True)
    for number in range(30):
        here = iterated(number)
        fresh = Batches(images, batch, 5, flip=True)(number)
        assert torch.equal(here.images, fresh.images)
        assert torch.equal(here.index, fresh.index)
    again = iterated(0)  # backwards, after its epoch has left the cache
    assert torch.equal(again.images, Batches(images, batch, 5, flip=True)(0).images)


def test_the_batch_size_changes_neither_order_nor_flips() -> None:
    images = toy(13)
    small, large = Batches(images, 3, 7, flip=True), Batches(images, 12, 7, flip=True)
    joined = [small(number) for number in range(12)]
    whole = [large(number) for number in range(3)]
    assert torch.equal(torch.cat([b.images for b in joined]), torch.cat([b.images for b in whole]))


def test_images_are_the_stored_ones_scaled_and_mirrored_or_not() -> None:
    images = toy(300)
    batch = Batches(images, 300, 0, flip=True)(0)
    stored = images.images[batch.index].double() / 127.5 - 1
    assert batch.images.dtype == torch.float32
    assert batch.images.is_contiguous()
    straight = (batch.images - stored).abs().amax((1, 2, 3)) < 1e-6
    mirrored = (batch.images - stored.flip(-1)).abs().amax((1, 2, 3)) < 1e-6
    assert torch.all(straight ^ mirrored)
    # 300 fair coins: within five standard deviations of 150.
    assert abs(int(mirrored.sum()) - 150) < 5 * (300 / 4) ** 0.5
    assert torch.equal(batch.labels, images.labels[batch.index])
    plain = Batches(images, 300, 0, flip=False)(0)
    assert torch.equal(plain.index, batch.index)
    assert torch.equal(plain.images, images.images[plain.index].float().div(127.5).sub(1))


def test_coins_are_tossed_anew_each_epoch() -> None:
    images = toy(200)
    batches = Batches(images, 200, 0, flip=True)
    by_place, by_image = [], []
    for epoch in range(2):
        batch = batches(epoch)
        straight = images.images[batch.index].float().div(127.5).sub(1)
        mirrored = (batch.images != straight).flatten(1).any(1)
        by_place.append(mirrored)
        by_image.append(mirrored[batch.index.argsort()])
    assert not torch.equal(*by_place)
    assert not torch.equal(*by_image)


def test_the_scale_ends_at_one_and_keeps_every_level() -> None:
    levels = np.arange(256, dtype=np.uint8).reshape(1, 1, 16, 16)
    images = canonical("ramp", "train", levels, None, classes=0, levels=256, provenance={})
    x = Batches(images, 1, 0, flip=False)(0).images.flatten()
    assert x[0] == -1
    assert x[-1] == 1
    assert torch.equal(((x + 1) * 127.5).round().byte(), images.images.flatten())


def test_a_batch_the_ranks_cannot_share_is_refused_with_one_they_can() -> None:
    with pytest.raises(UserError, match=r"trainer.batch_size=10 .* 4 ranks.*trainer.batch_size=8"):
        Batches(toy(5), 10, 0, False, 0, 4)
    with pytest.raises(UserError, match=r"trainer\.batch_size=0"):
        Batches(toy(5), 0, 0, False)


def test_an_empty_set_is_refused() -> None:
    empty = canonical(
        "toy", "train", np.zeros((0, 1, 4, 4), np.uint8), None, classes=0, levels=256, provenance={}
    )
    with pytest.raises(UserError, match="no images"):
        Batches(empty, 4, 0, False)


def test_numbers_start_at_nought() -> None:
    with pytest.raises(ValueError, match="numbered from 0"):
        Batches(toy(5), 2, 0, False)(-1)


@pytest.mark.gpu
def test_a_gpu_makes_the_same_batches() -> None:
    images = toy(50)
    here, there = Batches(images, 16, 2, flip=True), Batches(images.to("cuda"), 16, 2, flip=True)
    for number in range(8):
        assert torch.equal(here(number).index, there(number).index.cpu())
        torch.testing.assert_close(here(number).images, there(number).images.cpu(), rtol=0, atol=1e-6)
