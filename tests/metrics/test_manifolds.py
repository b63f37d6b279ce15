"""Precision, recall, density and coverage: torch-fidelity's values, extremes, ties, tiles."""

from __future__ import annotations

import math

import pytest
import torch
from features import measured, normal, real_of
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch_fidelity.metric_prc import prc_features_to_metric

from genbench.errors import UserError
from genbench.metrics.manifolds import DensityCoverage, PrecisionRecall
from genbench.ops.balls import radii


def figures(generated: Tensor, real: Tensor, k: int | None = None) -> dict[str, float]:
    measures = (PrecisionRecall(k or 3), DensityCoverage(k or 5))
    found = [measured(measure, generated, real_of(train=real)) for measure in measures]
    return {kind: figure.value for each in found for kind, figure in each.items()}


@pytest.mark.parametrize(("n", "other", "scale"), [(700, 600, 1.2), (300, 1300, 0.6)])
def test_torch_fidelity_agrees(n: int, other: int, scale: float) -> None:
    generated, real = normal(n, 6, 0, scale=scale).double(), normal(other, 6, 1).double()
    oracle = prc_features_to_metric(
        generated, real, prc_neighborhood=3, prc_batch_size=250, save_cpu_ram=True, verbose=False
    )
    found = figures(generated, real)
    assert found["precision"] == pytest.approx(oracle["precision"], rel=1e-6)
    assert found["recall"] == pytest.approx(oracle["recall"], rel=1e-6)
    assert min(found["precision"], found["recall"]) > 0.05
    assert min(found["precision"], found["recall"]) < 0.95


def test_density_and_coverage_are_their_definitions() -> None:
    generated, real, k = normal(90, 3, 0, scale=0.8), normal(70, 3, 1), 5
    distances = torch.cdist(real.double(), real.double())
    radius = distances.sort(dim=1).values[:, k]  # the first is the point itself
    inside = torch.cdist(real.double(), generated.double()) <= radius[:, None]
    found = figures(generated, real)
    assert found["density"] == pytest.approx(float(inside.sum()) / (k * 90), rel=1e-12)
    assert found["coverage"] == pytest.approx(float(inside.any(dim=1).double().mean()), rel=1e-12)


def test_the_extremes() -> None:
    real = normal(200, 4)
    same, apart = figures(real.clone(), real), figures(real + 100, real)
    assert (same["precision"], same["recall"], same["coverage"]) == (1, 1, 1)
    assert same["density"] >= 1  # each point lies in its own ball, and in those of about k others
    assert set(apart.values()) == {0}
    one_mode = figures(real[:1] + 1e-3 * normal(200, 4, 3), real)
    assert one_mode["precision"] == 1
    assert max(one_mode["recall"], one_mode["coverage"]) < 0.1


def test_an_image_drawn_again_and_again_is_inside_its_own_ball() -> None:
    """Radii of repeated images are zero, and a ball is closed: a copy of a repeated image is in it."""
    repeated = torch.cat([torch.zeros(10, 2), normal(50, 2, 1, mean=9.0)])
    assert bool((radii(repeated, 5)[:10] == 0).all())
    assert figures(torch.zeros(20, 2), repeated)["precision"] == 1


@settings(max_examples=15)
@given(seed=st.integers(0, 99), angle=st.floats(0, 3), shift=st.floats(-5, 5))
def test_order_and_motions_do_not_matter(seed: int, angle: float, shift: float) -> None:
    """Random sets have no two distances so near that rounding could exchange them: 1e-9 in float64."""
    generated, real = normal(60, 2, seed).double(), normal(70, 2, seed + 100).double()
    rotation = torch.tensor([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    order = torch.randperm(60, generator=torch.Generator().manual_seed(seed))
    moved = [rows @ rotation.double() + shift for rows in (generated[order], real)]
    assert figures(*moved) == pytest.approx(figures(generated, real), rel=1e-12)


def test_means_over_samples_have_their_standard_error() -> None:
    """That of precision is that of a share; 40 draws of the same law know their deviation to 11 %."""
    real = normal(300, 2, 1)
    found = [
        measured(PrecisionRecall(), normal(200, 2, s, scale=2.0), real_of(train=real)) for s in range(2, 42)
    ]
    shares = torch.tensor([each["precision"].value for each in found], dtype=torch.float64)
    share, error = found[0]["precision"].value, found[0]["precision"].bootstrap_std
    assert error == pytest.approx(math.sqrt(share * (1 - share) / 200), rel=1e-9)
    assert error == pytest.approx(float(shares.std()), rel=0.35)
    assert found[0]["recall"].bootstrap_std is None


def test_what_cannot_be_measured_is_refused() -> None:
    with pytest.raises(UserError, match="4 samples at least"):
        PrecisionRecall(3).start(3, {"features": 2})
    with pytest.raises(UserError, match="k=0"):
        DensityCoverage(0)
