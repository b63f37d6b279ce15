"""The bootstrap error of a Fréchet distance, and the distance of infinitely many samples."""

from __future__ import annotations

import pytest
import torch
from features import measured, normal
from torch import Tensor

from genbench.errors import UserError
from genbench.metrics.extrapolation import FrechetInfinity
from genbench.metrics.fid import FrechetDistance
from genbench.metrics.measure import Figure
from genbench.metrics.moments import Moments
from genbench.metrics.reference import Real, Reference

D = 16
"""Dimensions; the reference is exactly N(0, 1) in each, as infinitely many real images would be."""


def unit() -> Real:
    million = 10**6
    scatter = torch.eye(D, dtype=torch.float64) * (million - 1)
    mean = torch.zeros(D, dtype=torch.float64)
    moments = Moments.from_state({"n": torch.tensor([million]), "mean": mean, "scatter": scatter})
    return Real("train", {("features", "train"): Reference(moments, "train", "f" * 64)})


def over_draws(measure: FrechetDistance | FrechetInfinity, n: int, mean: float, draws: int) -> list[Figure]:
    real = unit()
    return [
        next(iter(measured(measure, normal(n, D, seed, mean, 1.3), real).values())) for seed in range(draws)
    ]


def column(figures: list[Figure], name: str) -> Tensor:
    return torch.tensor([getattr(figure, name) for figure in figures], dtype=torch.float64)


def test_the_bootstrap_error_is_the_deviation_over_independent_draws() -> None:
    """100 draws know their deviation to 7 %, and a bootstrap of 50 groups is uncertain by 10 %."""
    figures = over_draws(FrechetDistance(), 400, 0.5, 100)
    actual = float(column(figures, "value").std())
    estimated = float(column(figures, "bootstrap_std").mean())
    assert estimated == pytest.approx(actual, rel=0.25)
    assert float(column(figures, "bootstrap_std").std()) < estimated / 4


def test_near_the_reference_the_error_is_too_large_rather_than_too_small() -> None:
    """Where all of FD is the bias of few samples: see `genbench.metrics.fid`."""
    real = unit()
    figures = [measured(FrechetDistance(), normal(400, D, seed), real)["fd"] for seed in range(60)]
    ratio = float(column(figures, "bootstrap_std").mean() / column(figures, "value").std())
    assert 1.0 < ratio < 2.2


def test_the_bootstrap_is_repeatable_and_can_be_left_out() -> None:
    real, features = unit(), normal(100, D)
    assert measured(FrechetDistance(), features, real) == measured(FrechetDistance(), features, real)
    without = measured(FrechetDistance(bootstrap=False), features, real)["fd"]
    assert without.bootstrap_std is None
    assert without.value == pytest.approx(measured(FrechetDistance(), features, real)["fd"].value, rel=1e-12)


@pytest.mark.parametrize("mean", [0.0, 0.25])
def test_extrapolation_takes_the_bias_of_few_samples_away(mean: float) -> None:
    exact = D * mean**2 + D * 0.3**2
    finite = column(over_draws(FrechetDistance(bootstrap=False), 200, mean, 40), "value")
    infinite = over_draws(FrechetInfinity(), 200, mean, 40)
    values, errors = column(infinite, "value"), column(infinite, "bootstrap_std")
    assert float(finite.mean()) > 1.1 * exact
    # A second order in 1 / n remains: a tenth of the first here.
    remains = 0.1 * (float(finite.mean()) - exact) + 3 * float(values.std()) / 40**0.5
    assert abs(float(values.mean()) - exact) < remains
    # 40 draws know their deviation to 11 %; so near the reference the error may be sqrt(3) times too large.
    assert 0.75 < float(errors.mean() / values.std()) < 3**0.5
    assert {figure.better for figure in infinite} == {"lower"}


def test_too_few_samples_for_a_line_are_refused() -> None:
    with pytest.raises(UserError, match=r"metrics\.n_samples=512 or more"):
        FrechetInfinity().start(511, {"features": 128})
    FrechetInfinity().start(512, {"features": 128})
    with pytest.raises(UserError, match=r"metrics\.n_samples=8192 or more"):
        FrechetInfinity().start(8191, {"features": 2048})
    with pytest.raises(UserError, match="role=pool"):
        FrechetDistance("pool")
