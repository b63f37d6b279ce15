"""By class: distances of conditional samples, and whether all modes are there."""

from __future__ import annotations

import math

import pytest
import torch
from features import measured, normal, real_of
from torch import Tensor

from genbench.metrics.classes import ClassDistances, Modes
from genbench.metrics.fid import frechet_distance
from genbench.metrics.moments import Moments

K, D = 4, 3


def in_clusters(labels: Tensor, seed: int) -> Tensor:
    """Features around a centre of each class's own."""
    return normal(len(labels), D, seed) + 10 * normal(K, D, 99)[labels]


def evenly(n: int) -> Tensor:
    return torch.arange(n) % K


def test_each_class_is_compared_with_its_own_real_images() -> None:
    labels = torch.randint(K, (400,), generator=torch.Generator().manual_seed(0))
    drawn, actual = in_clusters(labels, 0), in_clusters(evenly(300), 1)
    found = measured(ClassDistances(), drawn, real_of(labels=evenly(300), train=actual), labels)
    expected = [
        frechet_distance(Moments.of(drawn[labels == k]), Moments.of(actual[evenly(300) == k]))
        for k in range(K)
    ]
    assert [found[f"class_fd_{k}"].value for k in range(K)] == pytest.approx(expected, rel=1e-9)
    assert found["class_fd"].value == pytest.approx(sum(expected) / K, rel=1e-9)
    assert found["class_fd_worst"].value == pytest.approx(max(expected), rel=1e-9)


def test_a_class_confused_with_another_is_seen_though_the_whole_is_as_before() -> None:
    drawn, actual = in_clusters(evenly(400), 0), in_clusters(evenly(400), 1)
    real = real_of(labels=evenly(400), train=actual)
    right = measured(ClassDistances(), drawn, real, evenly(400))
    confused = evenly(400).where(evenly(400) > 1, 1 - evenly(400))
    wrong = measured(ClassDistances(), drawn, real, confused)
    assert wrong["class_fd"].value > 20 * right["class_fd"].value
    assert wrong["class_fd_3"] == right["class_fd_3"]


def test_without_labels_or_without_a_class_nothing_is_said() -> None:
    drawn, actual = in_clusters(evenly(100), 0), in_clusters(evenly(100), 1)
    assert measured(ClassDistances(), drawn, real_of(labels=evenly(100), train=actual)) == {}
    assert measured(ClassDistances(), drawn, real_of(train=actual), evenly(100)) == {}
    none_of_three = evenly(100).clamp(max=2)
    assert measured(ClassDistances(), drawn, real_of(labels=evenly(100), train=actual), none_of_three) == {}


def modes(predicted: Tensor, actual: Tensor, labels: Tensor | None = None) -> dict[str, float]:
    """Of classifiers' outputs that are certain of these classes."""
    sure = lambda classes: 9.0 * torch.nn.functional.one_hot(classes, K).float()
    real = real_of("logits", labels=evenly(len(actual)), train=sure(actual))
    found = measured(Modes(), sure(predicted), real, labels, role="logits")
    return {kind: figure.value for kind, figure in found.items()}


def test_modes_are_counted_against_what_is_predicted_of_real_images() -> None:
    assert modes(evenly(200), evenly(400)) == {
        "modes_tv": 0.0,
        "modes_entropy": pytest.approx(math.log(K), rel=1e-12),
        "modes_missing": 0.0,
    }
    collapsed = modes(torch.zeros(100, dtype=torch.int64), evenly(400))
    assert collapsed == {"modes_tv": 0.75, "modes_entropy": 0.0, "modes_missing": 3.0}
    # A tenth of a class's share is where it counts as there: of a quarter of 400, ten.
    for count, missing in ((9, 1), (10, 0)):
        rare = torch.cat([torch.full((count,), 3), evenly(400 - count).clamp(max=2)])
        assert modes(rare, evenly(400))["modes_missing"] == missing


def test_samples_drawn_by_class_say_how_many_are_seen_as_it() -> None:
    mistaken = evenly(100).clone()
    mistaken[:30] = (mistaken[:30] + 1) % K
    assert modes(mistaken, evenly(400), evenly(100))["class_accuracy"] == pytest.approx(0.7, rel=1e-12)
    assert "class_accuracy" not in modes(mistaken, evenly(400))


def test_a_classifier_of_other_classes_says_nothing() -> None:
    """As Inception, of ImageNet's, for any data set."""
    real = real_of("logits", labels=torch.arange(50) % 3, train=normal(50, K))
    assert measured(Modes(), normal(50, K, 1), real, role="logits") == {}
