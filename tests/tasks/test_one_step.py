"""Runs of one-step generators from the command line: what samplers learn, pictures, divergences, sweeps."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from command_line import genbench
from PIL import Image
from safetensors.torch import load_file

from genbench.harness.scoring import fitted_sha256
from genbench.leaderboard.record import Result

SMALL = [
    "logger=none",
    "device=cpu",
    "trainer.steps=4",
    "trainer.batch_size=16",
    "metrics.n_samples=24",
]
GAN = [*SMALL, "model=fgan", "backbone.generator.widths=[16,8]", "backbone.critic.widths=[8,16]"]
GAN += ["sampler.statistics=600"]


@pytest.fixture(scope="module")
def gan(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "gan"
    genbench(*GAN, f"run_dir={folder}")
    return folder


def test_what_the_sampler_learnt_is_saved_and_recorded(gan):
    result = Result.read(gan / "result.json")
    fitted = load_file(gan / "fitted.safetensors")
    assert {name.rpartition(".")[2] for name in fitted} == {"running_mean", "running_var"}
    assert result.sampling.fitted_sha256 == fitted_sha256(fitted)
    assert result.sampling.nfe_max == 1


def test_samples_of_the_run_are_had_again(gan):
    genbench("task=sample", f"run_dir={gan}", "n=3")
    kept = np.load(gan / "samples" / "samples.npz")["arr_0"]
    for index in range(3):
        image = np.asarray(Image.open(gan / "samples" / "decode-step4" / f"{index:06d}.png"))
        assert np.array_equal(image, kept[index, :, :, 0])


def test_what_task_sample_writes_can_be_scored_as_it_is(gan):
    """The folder holds the images of the last call alone: no grids, no images of an earlier one."""
    folder = gan / "samples" / "decode-step4"
    for count in (24, 20):
        genbench("task=sample", f"run_dir={gan}", f"n={count}")
        assert len(list(folder.iterdir())) == count
    assert "20 images" in genbench("task=score", f"images={folder}", "device=cpu").stdout
    assert (gan / "samples" / "decode-step4-grid.png").is_file()


def test_the_divergence_is_a_metric_of_runs_and_of_anyones_images(gan):
    quick = ["metrics=divergence", "metrics.measures.divergence.estimator.steps=20"]
    said = genbench("task=evaluate", f"run_dir={gan}", *quick, "divergence=kl", "metrics.n_samples=24").stdout
    assert "divergence_kl_digits@24" in said
    images = gan / "samples" / "samples.npz"
    scored = genbench("task=score", f"images={images}", "device=cpu", *quick).stdout
    assert "divergence_js_digits@24" in scored


def test_an_autoencoder_shows_reconstructions_and_interpolations(tmp_path):
    genbench(*SMALL, "model=eae", "trainer.sample_every=2", f"run_dir={tmp_path / 'eae'}")
    samples = tmp_path / "eae" / "samples"
    for name in ("grid", "reconstructions", "interpolations", "step-00000002-reconstructions"):
        assert (samples / f"{name}.png").is_file(), name
    said = genbench("task=evaluate", f"run_dir={tmp_path / 'eae'}", "sampler=fitted_prior").stdout
    folder = next((tmp_path / "eae" / "evaluations").iterdir())
    assert "fd_digits@24" in said
    assert Result.read(folder / "result.json").sampling.fitted_sha256 is not None
    assert (folder / "fitted.safetensors").is_file()


def test_a_fitted_prior_needs_an_encoder(gan):
    refused = genbench("task=evaluate", f"run_dir={gan}", "sampler=fitted_prior", check=False)
    assert refused.returncode == 2
    assert "Samplers that fit: decode" in refused.stderr


def test_a_sweep_ends_with_scores_by_recipe_and_a_sheet_of_grids(tmp_path):
    finished = genbench("-m", *GAN, "divergence=kl,tv", f"hydra.sweep.dir={tmp_path}")
    assert "fgan on digits, divergence=kl, 1 training seed(s)" in finished.stdout
    assert "fgan on digits, divergence=tv, 1 training seed(s)" in finished.stdout
    assert Image.open(tmp_path / "grids.png").width > 300


@pytest.mark.parametrize(
    ("typed", "part"),
    [
        (["divergence=kl"], "divergence"),
        (["model=fgan", "objective=hinge", "head=log_ratio"], "head"),
        (["sampler=ddim", "variance=small"], "variance"),
        (["model=fgan", "network.channels=8"], "network"),
    ],
)
def test_a_choice_that_nothing_uses_is_refused(typed, part, tmp_path):
    refused = genbench(*SMALL, *typed, f"run_dir={tmp_path / 'run'}", check=False)
    assert refused.returncode != 0
    assert part in refused.stdout + refused.stderr
    assert not (tmp_path / "run").exists()


def test_a_divergence_typed_for_metrics_that_use_none_is_refused(gan):
    refused = genbench("task=evaluate", f"run_dir={gan}", "divergence=kl", check=False)
    assert refused.returncode == 2
    assert "type metrics=divergence too" in refused.stderr


def test_too_few_samples_for_a_divergence_are_refused_before_training(tmp_path):
    few = [argument for argument in GAN if "n_samples" not in argument]
    typed = ["metrics=divergence", "metrics.n_samples=12", f"run_dir={tmp_path / 'run'}"]
    refused = genbench(*few, *typed, check=False)
    assert refused.returncode == 2
    assert "at least 20 samples" in refused.stderr


@pytest.mark.slow
def test_a_gan_over_two_ranks_resumes_and_is_recorded(tmp_path):
    """Statistics, pictures and fitted tensors with more than one rank; a second sitting goes on."""
    folder = tmp_path / "run"
    genbench(*GAN, "trainer.sample_every=2", f"run_dir={folder}", ranks=2)
    longer = [argument for argument in GAN if "steps=4" not in argument] + ["trainer.steps=6"]
    genbench(*longer, "trainer.sample_every=2", f"run_dir={folder}", ranks=2)
    assert Result.read(folder / "result.json").training.steps == 6
    assert (folder / "samples" / "step-00000002.png").is_file()


def test_a_gan_resumes_bit_for_bit(gan, tmp_path):
    longer = [argument for argument in GAN if "steps=4" not in argument] + ["trainer.steps=7"]
    shutil.copytree(gan, tmp_path / "continued")
    for name in ("continued", "whole"):
        genbench(*longer, f"run_dir={tmp_path / name}")
    runs = [tmp_path / "continued", tmp_path / "whole"]
    images = [np.load(run / "samples" / "samples.npz")["arr_0"] for run in runs]
    assert np.array_equal(*images)
    fitted = [load_file(run / "fitted.safetensors") for run in runs]
    assert all(fitted[0][name].equal(fitted[1][name]) for name in fitted[0])


def test_a_likelihood_is_refused_where_there_is_none(gan):
    refused = genbench("task=evaluate", f"run_dir={gan}", "metrics=likelihood", check=False)
    assert refused.returncode == 2
    assert "Leave likelihood out" in refused.stderr
    refused = genbench("task=evaluate", f"run_dir={gan}", "likelihood=bound", check=False)
    assert "no part of this run uses likelihood" in refused.stderr
