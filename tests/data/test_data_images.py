"""The canonical order: a set is its pictures and labels, not the order they were found in."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from picture_files import random_images

from genbench.contracts import UserError
from genbench.data.images import ImageSet, canonical, check_facts


def make(images: np.ndarray, labels: np.ndarray | None, classes: int = 10) -> ImageSet:
    return canonical(
        "toy", "train", images, labels, classes=0 if labels is None else classes, levels=256, provenance={}
    )


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 40), st.integers(0, 2**31), st.booleans())
def test_any_order_gives_the_same_set(count: int, seed: int, labelled: bool) -> None:
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 3, (count, 1, 2, 2), dtype=np.uint8)  # few levels: some pictures occur twice
    labels = rng.integers(0, 2, count) if labelled else None
    order = rng.permutation(count)
    one, other = make(images, labels), make(images[order], None if labels is None else labels[order])
    assert one.sha256 == other.sha256
    assert torch.equal(one.images, other.images)
    assert labels is None or torch.equal(one.labels, other.labels)


def test_labels_stay_with_their_images() -> None:
    images = random_images(50)
    labels = images[:, 0, 0, 0] % 10
    made = make(images, labels.astype(np.int64))
    assert torch.equal(made.labels, made.images[:, 0, 0, 0].long() % 10)
    assert sorted(made.images.flatten(1).tolist()) == sorted(images.reshape(50, -1).tolist())


def test_the_order_and_the_hash_are_the_documented_ones() -> None:
    images, labels = random_images(5, channels=1, resolution=3), np.array([3, 1, 4, 1, 5])
    hashed = {
        hashlib.sha256(image.tobytes() + int(label).to_bytes(8, "little", signed=True)).digest(): image
        for image, label in zip(images, labels, strict=True)
    }
    made = make(images, labels)
    for image, digest in zip(made.images, sorted(hashed), strict=True):
        assert torch.equal(image, torch.from_numpy(hashed[digest]))
    assert made.sha256 == hashlib.sha256(b"uint8 NCHW (5, 1, 3, 3)" + b"".join(sorted(hashed))).hexdigest()


@pytest.mark.parametrize("change", ["pixel", "label", "shape", "unlabelled", "dropped"])
def test_the_hash_sees_every_change(change: str) -> None:
    images, labels = random_images(6, channels=1, resolution=4), np.arange(6)
    changed_images, changed_labels = images.copy(), labels.copy()
    if change == "pixel":
        changed_images[3, 0, 1, 2] ^= 1
    elif change == "label":
        changed_labels[3] = 9
    elif change == "shape":
        changed_images = changed_images.reshape(6, 1, 2, 8)
    elif change == "unlabelled":
        changed_labels = None
    else:
        changed_images, changed_labels = images[:5], labels[:5]
    assert make(images, labels).sha256 != make(changed_images, changed_labels).sha256


def test_an_image_set_refuses_what_it_is_not() -> None:
    good = make(random_images(4), np.arange(4))
    fields = {name: getattr(good, name) for name in good.__dataclass_fields__}
    for wrong in (
        {"images": good.images.float()},
        {"images": good.images[0]},
        {"images": good.images.transpose(2, 3)},
        {"labels": None},
        {"labels": good.labels[:3]},
        {"labels": good.labels.int()},
        {"classes": 0},
    ):
        with pytest.raises(ValueError, match="toy"):
            ImageSet(**(fields | wrong))


@pytest.mark.parametrize(
    ("fact", "said", "found"),
    [
        ("channels", 1, "3"),
        ("resolution", 16, "8"),
        ("classes", 2, "10"),
        ("levels", 17, "256"),
        ("name", "x", "toy"),
    ],
)
def test_facts_that_disagree_are_named_with_what_to_type(fact: str, said: object, found: str) -> None:
    images = make(random_images(4), np.arange(4))
    facts = {"name": "toy", "channels": 3, "resolution": 8, "classes": 10, "levels": 256}
    check_facts(images, **facts)
    with pytest.raises(UserError, match=rf"dataset.{fact} is {said}.*dataset.{fact}={found}"):
        check_facts(images, **(facts | {fact: said}))


def test_pictures_that_are_not_square_have_no_resolution() -> None:
    images = make(np.zeros((2, 1, 4, 6), np.uint8), None)
    with pytest.raises(UserError, match="4x6"):
        check_facts(images, name="toy", channels=1, resolution=4, classes=0, levels=256)
