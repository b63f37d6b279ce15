"""KID and CMMD: torch-fidelity's values, closed forms, and what an unbiased estimate promises."""

from __future__ import annotations

import math

import pytest
import torch
from features import measured, normal, real_of
from torch_fidelity.metric_kid import kernel_mmd, kid_features_to_metric

from genbench.errors import UserError
from genbench.metrics import kernels
from genbench.metrics.kernels import CMMD, KID, gaussian_discrepancy, kernel_distances


@pytest.mark.parametrize(("n", "other", "dimension"), [(1500, 1200, 32), (301, 300, 64)])
def test_kid_is_torch_fidelitys_on_the_same_subsets(n: int, other: int, dimension: int) -> None:
    # In float64 on both sides: torch-fidelity keeps the features' type, and three terms nearly cancel.
    generated, real = normal(n, dimension, 0).double(), normal(other, dimension, 1, mean=0.1).double()
    size = min(1000, n, other)
    oracle = kid_features_to_metric(
        generated, real, kid_subsets=7, kid_subset_size=size, rng_seed=2020, verbose=False
    )
    found = kernel_distances(generated, real, 7, 1000)
    assert float(found.mean()) == pytest.approx(oracle["kernel_inception_distance_mean"], rel=1e-9)
    assert float(found.std(correction=0)) == pytest.approx(oracle["kernel_inception_distance_std"], rel=1e-9)


def test_kid_of_equal_laws_is_zero_on_average_and_falls_on_both_sides() -> None:
    """The biased estimate would be larger by about (8 - 1) * 2 / m = 0.14 here."""
    values = [
        measured(KID(1, 100), normal(100, 16, 2 * seed), real_of(train=normal(100, 16, 2 * seed + 1)))["kid"]
        for seed in range(40)
    ]
    numbers = torch.tensor([figure.value for figure in values])
    error = float(numbers.std()) / math.sqrt(len(numbers))
    assert abs(float(numbers.mean())) < 3 * error < 0.14 / 5
    assert 5 < int((numbers < 0).sum()) < 35


def test_kid_of_shifted_normals_has_a_closed_form() -> None:
    """x ~ N(0, 1), y ~ N(a, 1) in one dimension: E (xy + 1)^3 follows from the moments up to the third."""
    a = 2.0
    moments = lambda m: (m, m**2 + 1, m**3 + 3 * m)

    def expected(one: float, other: float) -> float:
        (x, xx, xxx), (y, yy, yyy) = moments(one), moments(other)
        return xxx * yyy + 3 * xx * yy + 3 * x * y + 1

    exact = expected(0, 0) + expected(a, a) - 2 * expected(0, a)
    found = measured(KID(20, 1000), normal(20_000, 1, 0, mean=a), real_of(train=normal(20_000, 1, 1)))["kid"]
    assert found.split_std is not None
    assert found.value == pytest.approx(exact, abs=4 * found.split_std / math.sqrt(20))
    assert found.split_std < exact / 10


def test_kid_of_few_images_uses_them_all() -> None:
    generated, real = normal(30, 4, 0), normal(50, 4, 1)
    found = measured(KID(), generated, real_of(train=real))["kid"]
    assert found.better == "lower"
    assert found.value == measured(KID(), generated, real_of(train=real))["kid"].value
    whole = kernel_distances(generated, real[:30], 1, 30)
    assert float(whole) == pytest.approx(found.value, abs=5 * (found.split_std or 0))
    with pytest.raises(UserError, match="n_samples=1"):
        KID().start(1, {"features": 4})
    with pytest.raises(UserError, match="size from 2"):
        KID(size=1)


def test_cmmd_is_torch_fidelitys_estimate_and_the_pairs_of_images_with_themselves(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """By its RBF kernel, over all pairs; five digits, as the sums of nearly equal numbers allow."""
    monkeypatch.setattr(kernels, "TILE", 300)
    x = torch.nn.functional.normalize(normal(1000, 8, 0, mean=0.3), dim=1)
    y = torch.nn.functional.normalize(normal(700, 8, 1), dim=1)
    mean = lambda a, b: float(torch.exp(-torch.cdist(a.double(), b.double()).square() / 200).mean())
    expected = 1000 * (mean(x, x) + mean(y, y) - 2 * mean(x, y))
    found = measured(CMMD(), y, real_of("embedding", train=x), role="embedding")["cmmd"]
    assert found.value == pytest.approx(expected, rel=1e-9)
    oracle = kernel_mmd(
        x[:500].double().numpy(), y[:500].double().numpy(), kid_kernel="rbf", kid_kernel_rbf_sigma=10.0
    )
    # The oracle leaves out the pairs of an image with itself; each of those adds 1 - mean to n of n^2 terms.
    extra = (1 - mean(x[:500], x[:500])) / 499 + (1 - mean(y[:500], y[:500])) / 499
    assert gaussian_discrepancy(x[:500], y[:500]) == pytest.approx(1000 * (oracle + extra), rel=1e-5)
    assert gaussian_discrepancy(x, x) == pytest.approx(0.0, abs=1e-9)
