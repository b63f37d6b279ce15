"""Shipped extractors measure quality: they know their classes, and every kind of damage costs distance."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from quality import Damage, blurred, distances, duplicated, noisy, without_classes

from genbench.data.images import ImageSet
from genbench.data.sources import CIFAR10, Digits, FashionMNIST
from genbench.metrics.card import SHIPPED, Card, closed
from genbench.metrics.extractors import Shipped
from genbench.metrics.fid import frechet_distance
from genbench.metrics.moments import Moments
from genbench.metrics.training import pixelwise_gaussian

SOURCES = {"digits": Digits, "fashion_mnist": FashionMNIST, "cifar10": CIFAR10}
ACCURACY = {"digits": 0.985, "fashion_mnist": 0.925, "cifar10": 0.88}
NAMES = [name for name in SOURCES if (SHIPPED / f"{name}.json").is_file()]

DEGREES: list[tuple[Damage, tuple[float, ...]]] = [
    (blurred, (0.4, 0.5, 0.7, 1.0, 1.5)),
    (noisy, (0.05, 0.125, 0.25, 0.5, 1.0)),
    (without_classes, (0, 1, 2, 4, 8)),
    (duplicated, (0.5, 0.8, 0.9, 0.95, 0.98)),
]


@dataclass(frozen=True)
class Case:
    """An extractor and (part of) the data set it was trained on."""

    extractor: Shipped
    train: ImageSet
    test: ImageSet


@cache
def load(name: str, root: Path) -> Case:
    source = SOURCES[name]()
    return Case(Shipped(name), source.load(root, "train"), source.load(root, "test"))


@pytest.fixture(params=NAMES)
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    """Every shipped extractor; digits always, the others where GENBENCH_DATA names their data."""
    if request.param == "digits":
        return load("digits", Path("unused"))
    return load(request.param, request.getfixturevalue("data_root"))


def moments(extractor: Shipped, images: torch.Tensor) -> Moments:
    found = Moments()
    for part in images.split(500):
        found.update(extractor(part)["pool"])
    return found


@pytest.mark.parametrize("name", NAMES)
def test_the_card_fits_the_weights_and_the_promises(name: str) -> None:
    card = Card.read(name)
    path = SHIPPED / f"{name}.safetensors"
    assert hashlib.sha256(path.read_bytes()).hexdigest() == card.sha256
    assert path.stat().st_size < 4_000_000
    assert 200_000 < card.parameters < 2_000_000
    assert card.features <= 192
    assert card.test_accuracy >= ACCURACY[name]
    assert card.subset_mean < card.ceiling / 10


def test_the_card_was_measured_on_these_weights_and_this_data(case: Case) -> None:
    card = case.extractor.card
    images, labels = case.test.images[:1000], case.test.labels[:1000]
    assert case.train.sha256 == card.train_sha256
    right = (case.extractor(images)["logits"].argmax(1) == labels).double().mean()
    # Of 1,000 images the share differs from that of all by chance; of digits these are all.
    assert float(right) == pytest.approx(card.test_accuracy, abs=1e-6 if len(case.test) <= 1000 else 0.035)
    assert tuple(case.train.images.shape[1:]) == card.image_shape
    assert len(case.test) == card.n_test


@pytest.mark.parametrize(("damage", "degrees"), DEGREES, ids=[damage.__name__ for damage, _ in DEGREES])
def test_more_damage_is_more_distance(case: Case, damage: Damage, degrees: tuple[float, ...]) -> None:
    images, labels = case.train.images[:1000], case.train.labels[:1000]
    reference = moments(case.extractor, images)
    found = distances(case.extractor, images, labels, reference, damage, degrees)
    assert all(more > 1.2 * less for less, more in pairwise(found)), found


def test_the_scale_of_digits_is_reproduced() -> None:
    case = load("digits", Path("unused"))
    card = case.extractor.card
    reference = moments(case.extractor, case.train.images)
    floor = frechet_distance(moments(case.extractor, case.test.images), reference)
    gaussian = pixelwise_gaussian(case.train.images, card.n_samples)
    ceiling = frechet_distance(moments(case.extractor, gaussian), reference)
    assert closed(floor, card) == pytest.approx(1.0, abs=1e-3)
    assert closed(ceiling, card) == pytest.approx(0.0, abs=1e-3)
    assert closed((floor + ceiling) / 2, card) == pytest.approx(0.5, abs=1e-3)


def test_the_pixelwise_gaussian_has_the_pixels_moments() -> None:
    # Grey images, far from where clipping would change the moments.
    generator = torch.Generator().manual_seed(0)
    images = (128 + 15 * torch.randn(500, 3, 4, 4, generator=generator)).to(torch.uint8)
    drawn = pixelwise_gaussian(images, 20_000).double()
    torch.testing.assert_close(drawn.mean(0), images.double().mean(0), rtol=0, atol=0.5)
    torch.testing.assert_close(drawn.std(0), images.double().std(0), rtol=0.03, atol=0)
    correlation = torch.corrcoef(drawn.flatten(1).T).fill_diagonal_(0)
    assert float(correlation.abs().max()) < 0.04
