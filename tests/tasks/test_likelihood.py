"""metrics=likelihood from the command line."""

from __future__ import annotations

import pytest
from command_line import genbench

from genbench.leaderboard.record import Metric, Result

SMALL = ["logger=none", "device=cpu", "trainer.steps=4", "trainer.batch_size=16", "metrics.n_samples=24"]
SMALL += ["network.channels=8", "sampler.steps=2", "metrics=likelihood"]


def bits(folder, name: str) -> Metric:
    (found,) = [metric for metric in Result.read(folder / "result.json").metrics if metric.name == name]
    assert (found.better, found.n_samples) == ("lower", 360)
    assert found.reference == "test, 360 images of 17 grey levels"
    return found


def test_the_odes_likelihood_of_dequantised_images(tmp_path):
    loose = ["likelihood.rtol=0.1", "likelihood.atol=0.1", "model.levels=17"]
    genbench(*SMALL, *loose, f"run_dir={tmp_path / 'run'}")
    # A few steps of training say nothing yet, but their bits are of the order of log2 17 = 4.1.
    assert 1 < bits(tmp_path / "run", "bpd").value < 20


@pytest.mark.parametrize("typed", [["model=iddpm"], ["model=ddpm", "likelihood=bound"]], ids=" ".join)
def test_the_bound_of_discrete_times(typed, tmp_path):
    genbench(*SMALL, *typed, "schedule.steps=6", f"run_dir={tmp_path / 'run'}")
    assert bits(tmp_path / "run", "bpd_bound").value > 1


def test_continuous_time_has_no_bound():
    refused = genbench(*SMALL, "model=edm", "likelihood=bound", check=False)
    assert refused.returncode == 2
    assert "sum over discrete times" in refused.stderr
