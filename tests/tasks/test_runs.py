"""Whole runs from the command line: record, resume, refusals, evaluation, ranks. Tiny, and on real digits."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from command_line import environment, genbench
from PIL import Image

from genbench.leaderboard.record import Result

SMALL = [
    "logger=none",
    "device=cpu",
    "trainer.steps=6",
    "trainer.batch_size=8",
    "trainer.log_every=2",
    "network.channels=8",
    "sampler.steps=3",
    "metrics.n_samples=24",
]


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "a"
    genbench(*SMALL, f"run_dir={folder}")
    return folder


def test_a_run_leaves_everything_behind(trained):
    for name in ("config.yaml", "metrics.jsonl", "result.json", "samples/grid.png", "samples/samples.npz"):
        assert (trained / name).is_file(), name
    images = np.load(trained / "samples" / "samples.npz", allow_pickle=False)["arr_0"]
    assert (images.shape, images.dtype) == ((24, 8, 8, 1), np.uint8)


def test_the_record_states_what_happened(trained):
    result = Result.read(trained / "result.json")
    assert result.training.steps == 6
    assert result.training.images_seen == 48
    assert (result.sampling.nfe_mean, result.sampling.nfe_max) == (3.0, 3)
    assert [metric.name for metric in result.metrics] == ["fd_digits@24", "is_digits@24"]
    assert result.weights == "ema"
    assert result.dataset.sha256 == "cdad37e439b27e8b653dce6cc46bdad98fded8fa34344dcdf74c3c659e2c39eb"
    steps = [json.loads(line)["step"] for line in (trained / "metrics.jsonl").read_text().splitlines()]
    assert steps == [2, 4, 6, 6]


def test_the_same_command_again_has_nothing_to_do(trained):
    before = (trained / "result.json").read_bytes()
    assert "nothing is left to do" in genbench(*SMALL, f"run_dir={trained}").stdout
    assert (trained / "result.json").read_bytes() == before


def test_another_configuration_is_refused_with_the_difference(trained):
    refused = genbench(*SMALL, f"run_dir={trained}", "optim.lr=0.5", check=False)
    assert refused.returncode == 2
    assert "optim.lr: 0.001 -> 0.5" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_steps_may_grow_and_equal_one_long_run(trained, tmp_path):
    continued = tmp_path / "continued"
    shutil.copytree(trained, continued)
    longer = [argument for argument in SMALL if "steps=6" not in argument] + ["trainer.steps=9"]
    genbench(*longer, f"run_dir={continued}")
    genbench(*longer, f"run_dir={tmp_path / 'whole'}")
    images = [
        np.load(folder / "samples" / "samples.npz")["arr_0"] for folder in (continued, tmp_path / "whole")
    ]
    assert np.array_equal(*images)
    values = [Result.read(folder / "result.json").metrics for folder in (continued, tmp_path / "whole")]
    assert values[0] == values[1]


@pytest.mark.parametrize("batch_size", [1, 7])
def test_images_do_not_depend_on_the_sampling_batch(trained, batch_size):
    """The default batch holds all 24; the same images come out of batches of 1 and 7, within a grey level."""
    finished = genbench("task=evaluate", f"run_dir={trained}", f"sampler.batch_size={batch_size}")
    folder = Path(finished.stdout.split("record")[1].strip()).parent
    images = np.load(folder / "samples" / "samples.npz")["arr_0"].astype(int)
    expected = np.load(trained / "samples" / "samples.npz")["arr_0"].astype(int)
    assert np.abs(images - expected).max() <= 1
    found, first = (Result.read(path / "result.json").metrics[0].value for path in (folder, trained))
    assert found == pytest.approx(first, rel=0.02)


def test_images_and_scores_do_not_depend_on_the_number_of_ranks(trained):
    finished = genbench("task=evaluate", f"run_dir={trained}", "sampler.batch_size=5", ranks=2)
    folder = Path(finished.stdout.split("record")[1].strip()).parent
    images = np.load(folder / "samples" / "samples.npz")["arr_0"].astype(int)
    expected = np.load(trained / "samples" / "samples.npz")["arr_0"].astype(int)
    assert np.abs(images - expected).max() <= 1


def test_two_ranks_train_as_one(tmp_path):
    """The mechanics; that gradients are those of the whole batch is tests/harness/test_distributed.py's."""
    genbench(*SMALL, f"run_dir={tmp_path / 'two'}", ranks=2)
    result = Result.read(tmp_path / "two" / "result.json")
    assert result.training.world_size == 2
    assert result.training.images_seen == 48
    rows = [json.loads(line) for line in (tmp_path / "two" / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [2, 4, 6, 6]


def test_another_sampler_scores_the_same_weights(trained):
    finished = genbench(
        "task=evaluate", f"run_dir={trained}", "sampler=ancestral", "sampler.steps=5", "variance=small"
    )
    record = Path(finished.stdout.split("record")[1].strip())
    result = Result.read(record)
    assert (result.sampling.sampler, result.sampling.nfe_mean) == ("ancestral", 5.0)
    assert result.config["sampler"]["rule"]["eta"] == 1.0
    assert Result.read(trained / "result.json").sampling.sampler == "ddim"


def test_the_same_weights_sampled_in_another_precision_are_another_result(trained):
    typed = ["sampler.precision=bf16", "threads=2"]
    finished = genbench("task=evaluate", f"run_dir={trained}", *typed)
    result, usual = (
        Result.read(Path(finished.stdout.split("record")[1].strip())),
        Result.read(trained / "result.json"),
    )
    assert result.config["sampler"]["precision"] == "bf16"
    assert result.config_hash != usual.config_hash
    assert result.metrics[0].value != usual.metrics[0].value
    assert result.device.name.endswith(", 2 threads")


def test_a_sampler_typed_anew_brings_its_own_parts(tmp_path):
    """variance=small is the ancestral sampler's; evaluating with DDIM must not trip over it."""
    folder = tmp_path / "a"
    genbench(*SMALL, "sampler=ancestral", "variance=small", f"run_dir={folder}")
    finished = genbench("task=evaluate", f"run_dir={folder}", "sampler=ddim", "sampler.steps=2")
    assert Result.read(Path(finished.stdout.split("record")[1].strip())).sampling.sampler == "ddim"


@pytest.mark.parametrize(
    "typed", ["network.channels=64", "schedule=cosine", "experiment=cifar10/ddpm", "recipe=none"]
)
def test_parts_of_the_model_cannot_be_changed_after_either(trained, typed):
    refused = genbench("task=evaluate", f"run_dir={trained}", typed, check=False)
    assert refused.returncode == 2
    assert "cannot be changed" in refused.stderr


def test_a_run_refused_by_preflight_does_not_keep_its_directory(tmp_path):
    folder = tmp_path / "a"
    refused = genbench(*SMALL, f"run_dir={folder}", "sampler.steps=5000", check=False)
    assert refused.returncode == 2
    assert not folder.exists()
    genbench(*SMALL, f"run_dir={folder}")


def test_an_early_non_finite_loss_is_answered_with_advice(tmp_path):
    finished = genbench(*SMALL, f"run_dir={tmp_path / 'a'}", "optim.lr=1e30", "optim.warmup=0", check=False)
    assert finished.returncode == 2
    assert "not finite" in finished.stderr
    assert "lower optim.lr" in finished.stderr


def test_what_made_the_weights_cannot_be_changed_after(trained):
    refused = genbench("task=evaluate", f"run_dir={trained}", "optim.lr=1", check=False)
    assert refused.returncode == 2
    assert "optim cannot be changed" in refused.stderr


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("checkpoint=best", "train with trainer.evaluate_every=N"),
        ("metrics.seeds=3", "metrics.seeds=3: type a list"),
        ("sampler.rule.etta=1", "Did you mean sampler.rule.eta"),
        ("n=0", "n=0: type a whole number from 1 up"),
    ],
)
def test_mistakes_about_a_finished_run_are_answered_too(trained, typed, said):
    for task in ("evaluate", "sample"):
        refused = genbench(f"task={task}", f"run_dir={trained}", typed, check=False)
        assert refused.returncode == 2
        assert said in refused.stderr


def test_sampled_images_are_the_runs_own(trained):
    genbench("task=sample", f"run_dir={trained}", "n=3")
    folder = trained / "samples" / "ddim-step6"
    pixels = np.stack([np.asarray(Image.open(folder / f"{i:06d}.png")) for i in range(3)])
    expected = np.load(trained / "samples" / "samples.npz")["arr_0"][:3, ..., 0]
    assert np.abs(pixels.astype(int) - expected.astype(int)).max() <= 1


def test_samples_of_other_settings_have_a_name_of_their_own(trained):
    def sampled(*typed):
        before = set((trained / "samples").iterdir())
        said = genbench("task=sample", f"run_dir={trained}", "n=2", *typed).stdout
        made = {path.name for path in set((trained / "samples").iterdir()) - before if path.is_dir()}
        return made, "which these replace" in said

    sampled()
    assert sampled() == (set(), True)  # the same again
    assert sampled("sampler.steps=3", "sampler.batch_size=1") == (set(), True)  # typed, and the run's own
    for typed, word in (("sampler.rule.eta=0.5", "eta=0.5"), ("metrics.seeds=[3]", "seeds=3")):
        (name,), replaced = sampled(typed)
        assert name.startswith(f"ddim-step6-{word}-")
        assert not replaced
    assert sampled("sampler.rule.eta=0.5") == (set(), True)
    assert sampled("sampler.rule.eta=0.5", "sampler.batch_size=1") == (set(), True)
    # Without words of its own, and with other steps than the run's.
    (name,), _ = sampled("sampler=ddim")
    assert name.startswith("ddim-step6-")
    (name,), _ = sampled("sampler=heun", "sampler.steps=2")
    assert name.startswith("heun-step6-steps=2-")
    assert sampled("sampler=heun", "sampler.steps=2", "format=npz")[1] is False
    assert sampled("sampler=heun", "sampler.steps=2", "format=npz")[1] is True


def test_scoring_an_npz_gives_the_runs_own_scores(trained):
    finished = genbench("task=score", f"images={trained / 'samples' / 'samples.npz'}")
    line = next(line for line in finished.stdout.splitlines() if "fd_digits@24" in line)
    value = Result.read(trained / "result.json").metrics[0].value
    assert float(line.split()[1]) == pytest.approx(value, rel=1e-5)


def test_sigterm_stops_cleanly_and_the_same_command_goes_on(tmp_path):
    folder = tmp_path / "a"
    command = [*SMALL, f"run_dir={folder}", "trainer.steps=4000", "trainer.log_every=1"]
    process = subprocess.Popen(
        [sys.executable, "-m", "genbench", *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=environment(),
    )
    metrics = folder / "metrics.jsonl"
    while process.poll() is None and not (metrics.is_file() and metrics.stat().st_size):
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 128 + signal.SIGTERM
    assert f"run_dir={folder} goes on from there" in output
    stopped = int(output.split("at step ")[1].split(";")[0].replace(",", ""))
    rest = [argument for argument in command if "trainer.steps" not in argument]
    finished = genbench(*rest, f"trainer.steps={stopped + 2}", check=False)
    assert "trainer.steps may grow but not shrink" in finished.stderr


def test_a_budget_ends_with_a_scored_run(tmp_path):
    folder = tmp_path / "a"
    genbench(*SMALL, f"run_dir={folder}", "trainer.steps=1000000", "budget=6s")
    result = Result.read(folder / "result.json")
    assert result.training.stopped == "budget"
    assert 0 < result.training.steps < 1_000_000


def test_pictures_and_scores_on_the_way(tmp_path):
    folder = tmp_path / "a"
    periods = ["trainer.sample_every=2", "trainer.evaluate_every=3", "trainer.evaluate_samples=20"]
    genbench(*SMALL, *periods, f"run_dir={folder}")
    assert sorted(path.name for path in folder.glob("samples/step-*.png")) == [
        "step-00000002.png",
        "step-00000004.png",
    ]
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows if "eval/fd_digits@20" in row] == [3]
    finished = genbench("task=evaluate", f"run_dir={folder}", "checkpoint=best")
    assert "at step 3" in finished.stdout


def test_a_conditional_run_with_guidance_says_so(tmp_path):
    folder = tmp_path / "a"
    genbench(*SMALL, "conditional=true", "sampler.guidance=1", f"run_dir={folder}")
    result = Result.read(folder / "result.json")
    assert result.sampling.conditional
    assert result.sampling.nfe_mean == 6.0  # two evaluations in each of three steps


def test_a_multirun_shows_every_failure_and_finishes_the_rest(tmp_path):
    finished = genbench(
        "-m", *SMALL, "seed=0,1", "optim.lr=1e-3,1e30", f"hydra.sweep.dir={tmp_path}", check=False
    )
    assert finished.returncode == 1
    assert "2 of the jobs failed" in finished.stderr
    assert finished.stdout.count("record") == 2


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["task=nonsense"], "task=nonsense is not a task"),
        (["sampler=decode"], "Samplers that fit: analytic, ancestral"),
        (["device=tpu7"], "device=tpu7"),
        (["sampler.guidance=2"], "Train with conditional=true"),
        (["seed=-1"], "seed=-1"),
        (["trainer.steps=abc"], "trainer.steps=abc: type a whole number from 1 up"),
        (["trainer.steps=-5"], "trainer.steps=-5"),
        (["trainer.batch_size=0"], "trainer.batch_size=0"),
        (["trainer.log_every=0"], "trainer.log_every=0"),
        (["optim.lr=-1"], "optim.lr=-1: type a number above 0"),
        (["conditional=maybe"], "conditional=maybe: type true or false"),
        (["sampler.rule.eta=-1"], "sampler.rule.eta=-1"),
        (["sampler.steps=abc", "trainer.keep=0"], "trainer.keep=0"),
        (["task=score", "images=README.md"], "neither a folder nor a .zip"),
        (["metrics.seeds=[]"], "metrics.seeds=[]: type a list, [...], of which each is a whole number"),
        (["metrics.seeds=[1,1]"], "a whole number from 0 up, no two the same."),
        (["metrics.seeds=3"], "metrics.seeds=3: type a list, [...]"),
        (["dataset.flip=3"], "dataset.flip=3: type true or false"),
        (["optim.optimizer.betas=3"], "could not be built"),
        (["network.attention=8"], "(at network): 'int' object is not iterable"),
        (["checkpoint=step.safetensors"], "checkpoint= is of runs that are trained"),
        (["metrics.n_samples=3"], "metrics.n_samples=3"),
        (["trainer.evaluate_every=1", "trainer.evaluate_samples=5"], "trainer.evaluate_samples=5"),
        (["+optim.phases.critc.lr=1"], "this model's phases are denoiser"),
        (["budget=1s"], "less than sampling will take"),
        (["budget=soon"], "soon"),
        (["metrics=inception", "metrics.weights={missing}.pth"], "missing.pth"),
        (["dataset=folder", "dataset.path={missing}"], "missing"),
        (["dataset=cifar10", "data_root={missing}"], "cifar10"),
        (["trainer.precision=fp8"], "auto, fp32 or bf16"),
        (["trainer.compile=reduce-overhead", "trainer.accumulate=2"], "Type trainer.compile=true"),
        (["trainer.compile=reduce-overhead", "model=fgan"], "Type trainer.compile=true"),
        (["task=evaluate", "run_dir={missing}"], "holds no run"),
        (["task=score", "images={missing}"], "does not exist"),
        (["model=nonsense"], "nonsense"),
        (["trainer.stpes=5"], "stpes"),
    ],
)
def test_mistakes_are_answered_with_what_to_do(tmp_path, arguments, said):
    missing = tmp_path / "missing"
    typed = [argument.replace("{missing}", str(missing)) for argument in arguments]
    base = [] if f"run_dir={missing}" in typed else [f"run_dir={tmp_path / 'a'}"]
    finished = genbench("logger=none", "device=cpu", *base, *typed, check=False)
    assert finished.returncode != 0
    assert said in finished.stderr + finished.stdout
    assert "Traceback" not in finished.stderr
    assert not list((tmp_path / "a").glob("checkpoints/*.json"))
