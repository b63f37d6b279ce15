"""The inception score: its extremes, torch-fidelity's values; independence of batches, ranks and order."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch_fidelity.metric_isc import isc_features_to_metric

from genbench.metrics.inception_score import InceptionSums, inception_score, split_of


def logits(n: int, classes: int = 10, scale: float = 4.0) -> Tensor:
    return scale * torch.randn(n, classes, generator=torch.Generator().manual_seed(n))


@pytest.mark.parametrize(("n", "classes"), [(1000, 10), (997, 13), (10, 5), (2500, 1008)])
def test_torch_fidelity_agrees(n: int, classes: int) -> None:
    drawn = logits(n, classes)
    oracle = isc_features_to_metric(drawn)
    mean, spread = inception_score(drawn)
    assert mean == pytest.approx(oracle["inception_score_mean"], rel=1e-12)
    assert spread == pytest.approx(oracle["inception_score_std"], rel=1e-8)


def test_a_sure_and_even_classifier_scores_the_number_of_classes() -> None:
    classes, n = 7, 700
    # Each split holds every class equally often; certainty is infinite logits but for one.
    which = torch.empty(n, dtype=torch.int64)
    owner = split_of(n)
    for split in range(10):
        which[owner == split] = torch.arange(70) % classes
    drawn = torch.full((n, classes), -torch.inf)
    drawn[torch.arange(n), which] = 0.0
    mean, spread = inception_score(drawn)
    assert mean == pytest.approx(classes, rel=1e-12)
    assert spread == pytest.approx(0.0, abs=1e-12)


def test_a_constant_classifier_scores_one() -> None:
    mean, spread = inception_score(logits(1).expand(100, -1))
    assert mean == pytest.approx(1.0, rel=1e-12)
    assert spread == pytest.approx(0.0, abs=1e-12)


def test_class_ordered_samples_are_shuffled() -> None:
    # Cut in order, each split would hold one class and score 1.
    drawn = 50.0 * torch.nn.functional.one_hot(torch.arange(10).repeat_interleave(100), 10).float()
    assert inception_score(drawn)[0] > 9.0


def test_batches_order_and_ranks_do_not_matter() -> None:
    n = 503
    drawn = logits(n)
    whole = inception_score(drawn)
    order = torch.randperm(n, generator=torch.Generator().manual_seed(0))
    ranks = [InceptionSums(n, 10) for _ in range(3)]
    for number, part in enumerate(order.split(37)):
        ranks[number % 3].update({"logits": drawn[part]}, part)
    for other in ranks[1:]:
        ranks[0].merge(other)
    assert ranks[0].score() == pytest.approx(whole, rel=1e-12)


def test_reduce_is_a_sum_over_ranks() -> None:
    n = 200
    drawn = logits(n)
    first, second = InceptionSums(n, 10), InceptionSums(n, 10)
    first.update({"logits": drawn[:90]}, torch.arange(90))
    second.update({"logits": drawn[90:]}, torch.arange(90, n))

    def sum_tensors(tensors: list[Tensor]) -> None:
        for tensor, theirs in zip(tensors, second._state()):
            tensor += theirs

    first.reduce(sum_tensors)
    assert first.score() == pytest.approx(inception_score(drawn), rel=1e-12)


def test_the_splits_are_equal_parts() -> None:
    assert split_of(1003).bincount().tolist() == [100, 100, 100, 101, 100, 100, 101, 100, 100, 101]


def test_missing_or_repeated_images_are_refused() -> None:
    score = InceptionSums(20, 10)
    score.update({"logits": logits(19)}, torch.arange(19))
    with pytest.raises(ValueError, match="expected 20 images"):
        score.score()
    with pytest.raises(ValueError, match="at least 10"):
        split_of(9)
