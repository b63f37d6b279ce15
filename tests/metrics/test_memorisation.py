"""Diagnostics of memorisation: nothing to see in new data, unmistakable in copies; definitions by hand."""

from __future__ import annotations

import math

import pytest
import torch
from features import measured, normal, real_of
from torch import Tensor

from genbench.errors import UserError
from genbench.metrics.memorisation import Memorisation, c_t, k_means, z_score

TRAIN, TEST = normal(400, 4, 0), normal(300, 4, 1)


def diagnostics(generated: Tensor, train: Tensor = TRAIN, test: Tensor = TEST) -> dict[str, float]:
    found = measured(Memorisation(), generated, real_of(train=train, test=test))
    assert {figure.better for figure in found.values()} == {"neither"}
    return {kind: figure.value for kind, figure in found.items()}


def test_new_data_show_nothing() -> None:
    """C_T is a mean of three z-scores, weighted: of deviation 0.6 to 1 for equal laws."""
    over_seeds = [diagnostics(normal(400, 4, seed)) for seed in range(2, 14)]
    scores = torch.tensor([found["c_t"] for found in over_seeds])
    assert float(scores.abs().max()) < 3.5
    for found in over_seeds:
        assert 0.4 < found["authenticity"] < 0.7
        assert 0.9 < found["train_distance_ratio"] < 1.1


@pytest.mark.parametrize("noise", [0.0, 0.05])
def test_copies_are_unmistakable_to_the_last(noise: float) -> None:
    found = diagnostics(TRAIN + noise * normal(400, 4, 7))
    assert found["c_t"] < -10
    assert found["authenticity"] < 0.05
    assert found["train_distance_ratio"] < 0.25
    exact = diagnostics(TRAIN.clone())
    assert (exact["authenticity"], exact["train_distance_ratio"]) == (0, 0)


def test_a_few_copies_among_new_data_are_seen() -> None:
    some = torch.cat([TRAIN[:200], normal(200, 4, 5)])
    assert diagnostics(some)["c_t"] < -3


def test_cells_tell_copying_from_drawing_one_mode_too_often() -> None:
    """New data, but mostly of the mode whose images lie close together: without cells that looks copied."""

    def draw(n: int, tight: int, seed: int) -> Tensor:
        loose = normal(n - tight, 2, seed + 50, mean=100.0, scale=3.0)
        return torch.cat([normal(tight, 2, seed, scale=0.1), loose])

    generated, test, train = draw(400, 320, 0), draw(400, 200, 1), draw(400, 200, 2)
    assert c_t(generated, test, train, 1) < -5
    assert abs(c_t(generated, test, train, 2)) < 3


def test_underfitting_is_the_other_way() -> None:
    found = diagnostics(normal(400, 4, 3, scale=3.0))
    assert found["c_t"] > 5
    assert found["authenticity"] > 0.7
    assert found["train_distance_ratio"] > 1.3


def test_authenticity_by_hand() -> None:
    """On a line: 0 and 1 are each other's nearest, at 1; 10 is 9 from 1."""
    train = torch.tensor([[0.0], [1.0], [10.0]])
    generated = torch.tensor([[-0.5], [-2.0], [15.0], [25.0]]).repeat(15, 1)
    found = diagnostics(generated, train, torch.tensor([[2.0], [4.0], [0.5]]))
    assert found["authenticity"] == 0.5  # -2 is 2 > 1 from 0, 25 is 15 > 9 from 10; the others nearer
    assert found["train_distance_ratio"] == 2.0  # medians 2 (of .5, 2, 5, 15: the lower middle) and 1


def test_the_mann_whitney_statistic_by_hand_and_its_law() -> None:
    q, p = torch.tensor([1.0, 2, 2]), torch.tensor([0.0, 2, 3, 4])
    pairs = sum(float(a > b) + 0.5 * float(a == b) for a in q for b in p)
    assert z_score(q, p) == pytest.approx((pairs - 6) / math.sqrt(12 * 8 / 12), rel=1e-12)
    assert z_score(p, q) == pytest.approx(-z_score(q, p), rel=1e-12)
    scores = torch.tensor([z_score(normal(50, 1, s)[:, 0], normal(40, 1, s + 500)[:, 0]) for s in range(400)])
    assert float(scores.mean()) == pytest.approx(0, abs=4 / 20)
    assert float(scores.std()) == pytest.approx(1, abs=0.15)


def test_cells_are_the_clusters_that_are_there_and_always_the_same() -> None:
    centres = torch.tensor([[0.0, 0], [50, 0], [0, 50]])
    x = normal(300, 2) + centres[torch.arange(300) % 3]
    found = k_means(x, 3)
    assert torch.equal(found, k_means(x, 3))
    assert float(torch.cdist(centres, found).min(dim=1).values.max()) < 0.5
    assert len(k_means(x[:2], 3)) == 2


def test_what_cannot_be_computed_is_refused() -> None:
    with pytest.raises(UserError, match=r"metrics\.n_samples=60 or more"):
        Memorisation().start(59, {"features": 3})
    with pytest.raises(UserError, match="cells=0"):
        Memorisation(0)
