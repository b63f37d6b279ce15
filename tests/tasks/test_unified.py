"""Every corruption from the command line to the record, and its picture."""

from __future__ import annotations

import pytest
from command_line import genbench
from PIL import Image

from genbench.leaderboard.record import Result

SHORT = ["dataset=digits", "network.channels=8", "trainer.steps=2", "trainer.batch_size=16"]
SHORT += ["metrics.n_samples=40", "logger=none", "device=cpu"]

CASES = {
    "blur": (["model=udm", "corruption=blur", "sampler.steps=3"], True),
    "pixelate": (["model=udm", "corruption=pixelate", "rule=fresh", "sampler.steps=3"], True),
    "snow": (
        ["model=udm", "corruption=snow", "draw=normal", "estimator=restoration", "sampler.steps=3"],
        True,
    ),
    "blurring": (["model=udm", "corruption=blurring", "sampler.steps=3"], False),
    "mask": (["model=udm", "corruption=mask", "sampler.steps=3"], False),
    "confident": (["model=udm", "corruption=mask", "rule=confident", "draw=mean", "sampler.steps=3"], False),
    "joint": (
        ["model=d3pm", "rule=joint", "sampler.steps=3", "metrics=likelihood", "likelihood.evaluations=2"],
        False,
    ),
    "edit": (["model=udm", "corruption=edit", "sampler.steps=3"], True),
    "deletion": (["model=udm", "corruption=deletion", "draw=apart"], False),
    "together": (["model=udm", "corruption=deletion", "sampler.steps=2"], True),
    "ihdm": (["model=ihdm", "corruption.steps=3", "sampler.steps=3"], True),
    "d3pm": (["model=d3pm", "sampler.steps=3", "metrics=likelihood", "likelihood.evaluations=2"], False),
    "uniform": (["model=d3pm", "corruption=uniform", "sampler.steps=3", "conditional=true"], False),
    "absorbing": (["model=d3pm", "corruption=absorbing", "sampler.steps=3"], False),
    "d3pm of masks": (["model=d3pm", "corruption=mask_independent", "sampler.steps=3"], False),
    "mixture": (["model=d3pm", "estimator=d3pm_mixture", "sampler.steps=3"], False),
    "md4": (["model=md4", "sampler.steps=3", "metrics=likelihood", "likelihood.evaluations=2"], False),
}


@pytest.mark.parametrize("name", CASES)
def test_a_run_of_every_corruption_is_recorded_and_shown(tmp_path, name):
    """What was fitted after training (terminal laws, draws) is kept and hashed."""
    overrides, fits = CASES[name]
    run = tmp_path / "run"
    genbench(*overrides, *SHORT, f"run_dir={run}")
    result = Result.read(run / "result.json")
    steps = next((int(each.split("=")[1]) for each in overrides if each.startswith("sampler.steps")), 8)
    assert result.sampling.nfe_max == result.sampling.nfe_mean == steps
    assert (result.sampling.fitted_sha256 is not None) is fits
    if "metrics=likelihood" in overrides:
        (bound,) = [metric for metric in result.metrics if metric.name == "bpd_bound"]
        assert 0 < bound.value < 100
    said = genbench("task=walk", f"run_dir={run}", "n=2").stdout
    picture = run / "samples" / "walk.png"
    assert str(picture) in said
    width, height = Image.open(picture).size
    assert (width - 2, height - 2) == (17 * 34, 2 * 34)


BLOCKS = ["corruption.units._target_=genbench.corruptions.deletion.Blocks"]


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["model=ddpm", "corruption=mask"], "estimator=restoration"),
        (["model=udm", "corruption=mask", "rule=deterministic"], "rule=fresh"),
        (["model=udm", "corruption=mask", "sampler=heun"], "Gaussian"),
        (["model=udm", "corruption=blur", "draw=apart"], "draw=mean"),
        (["model=udm", "corruption=blur", "rule=ancestral"], "rule=fresh"),
        (["model=udm", "corruption=blur", "metrics=likelihood", "likelihood=categorical"], "likelihood=ode"),
        (["model=udm", "corruption=edit", "estimator=md4"], "Type model=udm"),
        (["model=ihdm", "sampler.steps=7"], "sampler.steps=100"),
        (["model=ihdm", "sampler=restore"], "sampler=ihdm"),
        (
            ["model=udm", "corruption=blur", "sampler=ihdm", "sampler.steps=100", "corruption.steps=100"],
            "model=ihdm",
        ),
        (["model=udm", "corruption=mask", "grid=quadratic"], "grid=uniform"),
        (["model=udm", "corruption=mask", "corruption.order.patch=16"], "Type corruption.order.patch=4"),
        (
            ["model=udm", "corruption=deletion", *BLOCKS, "+corruption.units.side=3"],
            "corruption.units.side=4",
        ),
        (["model=d3pm", "corruption.steps=null"], "corruption.steps=1000"),
        (["model=d3pm", "corruption=uniform", "corruption.steps=null"], "corruption.steps=1000"),
        (["model=d3pm", "estimator=d3pm_mixture", "estimator.head.components=1"], "d3pm_logistic"),
        (["model=udm", "corruption=mask", "estimator=restoration"], "draw=mean"),
    ],
)
def test_what_does_not_fit_is_refused_before_training(tmp_path, overrides, said):
    finished = genbench(*overrides, *SHORT, f"run_dir={tmp_path / 'run'}", check=False)
    assert finished.returncode == 2
    assert said in finished.stderr
    assert not (tmp_path / "run").exists()


def test_runs_stand_beside_each_other_a_row_each(tmp_path):
    runs = [tmp_path / name for name in ("blur", "mask")]
    for run in runs:
        genbench("model=udm", f"corruption={run.name}", "sampler.steps=3", *SHORT, f"run_dir={run}")
    said = genbench("task=walk", f"run_dir={runs[0]}", f"walk.beside=[{runs[1]}]", "n=5").stdout
    picture = runs[0] / "samples" / "walks.png"
    assert str(picture) in said
    width, height = Image.open(picture).size
    assert width > 17 * 34 + 2
    assert height == 2 * 34 + 2
    refused = genbench("task=walk", f"run_dir={runs[0]}", f"walk.beside=[{tmp_path / 'none'}]", check=False)
    assert refused.returncode == 2
    assert "holds no run" in refused.stderr
