"""Metrics that are timed against each other are the same metric."""

from __future__ import annotations

import pytest
import tiny
import torch

from genbench.metrics.extractors import Inception
from genbench.metrics.fid import frechet_distance
from genbench.speed import metrics


def test_all_forms_of_the_distance_agree():
    a, b = metrics.statistics(24)
    ours = frechet_distance(a, b)
    assert ours > 1
    assert metrics.by_square_root(a, b) == pytest.approx(ours, rel=1e-8)
    assert metrics.by_torch_fidelity(a, b) == pytest.approx(ours, rel=1e-8)
    names = [row.name for row in metrics._matrix_term(24, tiny.bench())]
    assert names == ["genbench", "torch-fidelity", "scipy.linalg.sqrtm"]


def test_precision_and_recall_are_torch_fidelitys(monkeypatch):
    generator = torch.Generator().manual_seed(1)
    generated, actual = torch.randn(2, 60, 5, generator=generator)
    found = metrics.precision_recall(generated, actual + 1)
    assert all(0.1 < share < 0.9 for share in found)
    assert metrics.balls_by_torch_fidelity(generated, actual + 1) == pytest.approx(found, abs=1e-6)
    monkeypatch.setattr(metrics, "FEATURES", 8)
    assert [row.name for row in metrics._precision_recall(20, tiny.bench())] == ["genbench", "torch-fidelity"]


@pytest.mark.slow
def test_features_are_torch_fidelitys_and_nothing_is_downloaded(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "download_url_to_file", lambda *a, **k: pytest.fail("a download"))
    weights = metrics.random_weights(tmp_path / "random.pth")
    images = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    ours, theirs = Inception(weights)(images), metrics.torch_fidelitys(weights, torch.device("cpu"))
    for role, expected in zip(("features", "logits"), metrics._quietly(theirs, images), strict=True):
        torch.testing.assert_close(ours[Inception.roles[role]], expected, rtol=1e-4, atol=1e-4)
        assert expected.std() > 1e-3
