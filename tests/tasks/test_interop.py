"""Samples out and in: other suites read what we write, and what they write is scored as it is."""

from __future__ import annotations

import hashlib
import shutil
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from command_line import genbench
from PIL import Image
from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric
from torch_fidelity.utils import prepare_input_from_id

from genbench.data.sources import Digits
from genbench.leaderboard.record import Result
from genbench.metrics.extractors import Shipped

COUNT = 60
SMALL = [
    "logger=none",
    "device=cpu",
    "trainer.steps=3",
    "trainer.batch_size=8",
    "network.channels=8",
    "sampler.steps=2",
    f"metrics.n_samples={COUNT}",
]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "a"
    genbench(*SMALL, "conditional=true", f"run_dir={folder}")
    return folder


def streamed(path: Path, name: str) -> np.ndarray:
    """An array of an npz as guided-diffusion's evaluator reads it: as a stream, row after row."""
    with zipfile.ZipFile(path) as archive, archive.open(f"{name}.npy") as file:
        assert np.lib.format.read_magic(file) == (1, 0)
        shape, fortran, dtype = np.lib.format.read_array_header_1_0(file)
        assert not fortran
        assert not dtype.hasobject
        return np.frombuffer(file.read(), dtype).reshape(shape).copy()


def score(images: Path, *typed: str) -> float:
    said = genbench("task=score", f"images={images}", "device=cpu", *typed).stdout
    (line,) = (line for line in said.splitlines() if line.startswith(f"  fd_digits@{COUNT}"))
    return float(line.split()[1])


def test_guided_diffusions_evaluator_reads_the_samples_of_a_run(trained: Path) -> None:
    pixels = streamed(trained / "samples" / "samples.npz", "arr_0")
    assert (pixels.shape, pixels.dtype) == ((COUNT, 8, 8, 1), np.uint8)


def test_torch_fidelity_reads_the_folder_and_scores_it_as_we_do(trained: Path) -> None:
    """torch-fidelity's own reader of folders and its own distance, on our extractor's features."""
    genbench("task=sample", f"run_dir={trained}", f"n={COUNT}")
    folder = trained / "samples" / "ddim-step3"
    read = prepare_input_from_id(1, input1=str(folder), samples_find_deep=False, verbose=False)
    images = torch.stack([read[number] for number in range(len(read))])
    kept = torch.from_numpy(streamed(trained / "samples" / "samples.npz", "arr_0")).permute(0, 3, 1, 2)
    assert images.shape == (COUNT, 3, 8, 8)  # it shows grey pictures in colour
    assert all(torch.equal(images[:, channel], kept[:, 0]) for channel in range(3))

    extractor = Shipped("digits")
    layer = extractor.roles["features"]
    ours, theirs = (
        fid_features_to_statistics(extractor(given)[layer].double())
        for given in (images[:, :1].contiguous(), Digits().load(Path("unused"), "train").images)
    )
    expected = fid_statistics_to_metric(ours, theirs, verbose=False)["frechet_inception_distance"]
    # Printed to six digits. Its square root of a singular matrix is good to about as many.
    assert score(folder) == pytest.approx(expected, rel=2e-5)
    recorded = Result.read(trained / "result.json").metrics[0].value
    assert score(trained / "samples" / "samples.npz") == pytest.approx(recorded, rel=1e-5)


def test_one_array_holds_the_same_with_the_classes(trained: Path) -> None:
    said = genbench("task=sample", f"run_dir={trained}", f"n={COUNT}", "format=npz").stdout
    path = trained / "samples" / "ddim-step3.npz"
    assert str(path) in said
    assert np.array_equal(streamed(path, "arr_0"), streamed(trained / "samples" / "samples.npz", "arr_0"))
    labels = streamed(path, "arr_1")
    assert (labels.shape, labels.dtype) == ((COUNT,), np.int64)
    assert set(labels.tolist()) <= set(range(10))
    assert len(set(labels.tolist())) > 3
    assert score(path) == pytest.approx(Result.read(trained / "result.json").metrics[0].value, rel=1e-5)


def scores(images: Path) -> dict[str, float]:
    lines = genbench("task=score", "device=cpu", "measures=classes", f"images={images}").stdout.splitlines()
    return {line.split()[0]: float(line.split()[1]) for line in lines if f"@{COUNT}" in line}


def test_classes_that_come_along_are_measured_as_a_run_s_own_are(trained: Path, tmp_path: Path) -> None:
    genbench("task=sample", f"run_dir={trained}", f"n={COUNT}", "format=npz")
    samples = trained / "samples" / "ddim-step3.npz"
    genbench("task=evaluate", f"run_dir={trained}", "measures=classes")  # the run's seed: these very images
    (record,) = (trained / "evaluations").glob("ddim-step3-measures=classes-*/result.json")
    own = {metric.name: metric.value for metric in Result.read(record).metrics}
    assert f"class_accuracy_digits@{COUNT}" in own
    brought = scores(samples)
    assert brought == pytest.approx(own, rel=1e-5)  # printed to six digits

    with np.load(samples) as held:
        pixels, labels = held["arr_0"], held["arr_1"]
    np.savez(tmp_path / "bare.npz", pixels)
    bare = scores(tmp_path / "bare.npz")
    assert bare == {name: value for name, value in brought.items() if not name.startswith("class_")}
    np.savez(tmp_path / "turned.npz", pixels, (labels + 1) % 10)
    turned = scores(tmp_path / "turned.npz")
    assert turned.keys() == brought.keys()
    assert turned != brought


def test_floats_are_scored_once_their_range_is_said(trained: Path, tmp_path: Path) -> None:
    pixels = streamed(trained / "samples" / "samples.npz", "arr_0")
    np.save(tmp_path / "x.npy", pixels.transpose(0, 3, 1, 2) / np.float32(255))
    refused = genbench("task=score", f"images={tmp_path / 'x.npy'}", "device=cpu", check=False)
    assert refused.returncode == 2
    assert "type images_range=[-1,1]" in refused.stderr
    expected = Result.read(trained / "result.json").metrics[0].value
    assert score(tmp_path / "x.npy", "images_range=[0,1]") == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        (["task=sample", "format=jpg"], "format=jpg: type format=png or format=npz"),
        (["task=score", "images=x.npy", "images_range=[1,0]"], "the first below the second"),
        (["task=score", "images=x.npy", "images_range=2"], "the first below the second"),
        (["task=score"], "images=DIR"),
    ],
)
def test_mistakes_are_answered_in_one_line(trained: Path, typed: list[str], said: Any) -> None:
    where = [f"run_dir={trained}"] if "task=sample" in typed else []
    refused = genbench(*typed, *where, check=False)
    assert refused.returncode == 2
    assert said in refused.stderr
    assert refused.stderr.count("\n") == 1


# ------------------------------------------------------------------------- a diffusers checkpoint as a model


def checkpoint(at: Path, seed: int = 0) -> Path:
    """A small pipeline of random weights, as diffusers saves it."""
    diffusers = pytest.importorskip("diffusers", reason="diffusers is not installed (the extra `peers`)")
    torch.manual_seed(seed)
    unet = diffusers.UNet2DModel(
        sample_size=8,
        in_channels=1,
        out_channels=1,
        block_out_channels=(8, 16),
        down_block_types=("DownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "UpBlock2D"),
        layers_per_block=1,
        norm_num_groups=4,
    )
    diffusers.DDPMPipeline(unet, diffusers.DDPMScheduler(num_train_timesteps=50)).save_pretrained(at)
    return at


def test_a_diffusers_checkpoint_is_scored_and_sampled_without_training(tmp_path: Path) -> None:
    theirs, run = checkpoint(tmp_path / "theirs"), tmp_path / "run"
    model = ["model=diffusers", f"model.path={theirs}", f"run_dir={run}"]
    quick = ["device=cpu", "sampler.steps=2", f"metrics.n_samples={COUNT}"]
    for _ in range(2):  # the second time the run is there
        said = genbench("task=evaluate", *model, *quick).stdout
    result = Result.read(Path(said.split("record")[1].strip()))
    assert (result.model.name, result.training.steps, result.sampling.nfe_max) == ("diffusers", 0, 2)
    assert len(result.config["model"]["sha256"]) == 64
    assert result.metrics[0].name == f"fd_digits@{COUNT}"

    genbench("task=sample", f"run_dir={run}", "n=3")
    shutil.move(theirs, tmp_path / "moved")
    moved = ["task=evaluate", *model[:1], f"model.path={tmp_path / 'moved'}", f"run_dir={tmp_path / 'b'}"]
    again = genbench(*moved, *quick).stdout
    assert Result.read(Path(again.split("record")[1].strip())).config_hash == result.config_hash

    checkpoint(theirs, seed=1)
    refused = genbench("task=sample", f"run_dir={run}", check=False)
    assert refused.returncode == 2
    assert "is not the checkpoint of this run" in refused.stderr


def test_it_is_not_trained_and_not_anothers_size(tmp_path: Path) -> None:
    theirs = checkpoint(tmp_path / "theirs")
    model = ["model=diffusers", f"model.path={theirs}", f"run_dir={tmp_path / 'a'}", "device=cpu"]
    for typed, said in (
        (["logger=none"], "task=evaluate or task=sample"),
        (["dataset=mnist"], "makes images of"),
    ):
        refused = genbench(*model, *typed, check=False)
        assert refused.returncode == 2
        assert said in refused.stderr
        assert not (tmp_path / "a").exists()


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        (["model=diffusers"], "type model.path=DIR"),
        (["model=diffusers", "model.path=nowhere"], "nowhere has no config.json"),
        (["model=ddpm"], "has no readable checkpoint. Train first"),
    ],
)
def test_a_run_that_cannot_begin_leaves_nothing(typed: list[str], said: str, tmp_path: Path) -> None:
    where = [f"run_dir={tmp_path / 'a'}", "device=cpu"]
    refused = genbench("task=evaluate", *typed, *where, check=False)
    assert refused.returncode == 2
    assert said in refused.stderr
    assert not (tmp_path / "a").exists()


def test_a_section_typed_again_is_no_change(trained: Path) -> None:
    few = ["sampler.steps=1", "metrics.n_samples=20"]
    genbench("task=evaluate", f"run_dir={trained}", "model=ddpm", "dataset=digits", *few)
    refused = genbench("task=evaluate", f"run_dir={trained}", "model=flow", *few, check=False)
    assert "model cannot be changed" in refused.stderr


def test_evaluations_of_two_checkpoints_lie_apart(trained: Path, tmp_path: Path) -> None:
    """Of as many steps, named in part after what was typed, which may be long."""
    newest = max((trained / "checkpoints").glob("*.safetensors"))
    for folder in ("a", "b"):
        copy = tmp_path / f"{'long' * 20}-{folder}" / newest.name
        copy.parent.mkdir()
        for suffix in (".safetensors", ".json"):
            shutil.copyfile(newest.with_suffix(suffix), copy.with_suffix(suffix))
        few = ["metrics.n_samples=20", "sampler.steps=1", f"run_dir={trained}"]
        genbench("task=evaluate", f"checkpoint={copy}", *few)
    assert len(list((trained / "evaluations").glob("ddim-step*-checkpoint=*"))) == 2


def test_nothing_typed_in_place_of_something_is_a_change(trained: Path) -> None:
    """null is a value like others: not what the run had, and not to be passed over."""
    few = ["metrics.n_samples=20", "sampler.steps=1", f"run_dir={trained}"]
    genbench("task=evaluate", "sampler=predictor_corrector", "sampler.corrector=null", *few)
    (folder,) = (trained / "evaluations").glob("predictor_corrector-*")
    assert Result.read(folder / "result.json").sampling.nfe_max == 1
    refused = genbench("task=evaluate", "optim.decay=null", *few, check=False)
    assert "optim cannot be changed" in refused.stderr


def test_a_folder_of_other_things_is_not_taken_for_a_run(trained: Path, tmp_path: Path) -> None:
    (weights,) = (trained / "checkpoints").glob("step-*3.safetensors")
    (tmp_path / "metrics.jsonl").write_text("mine")
    typed = [*SMALL, "model=ddpm", "conditional=true", f"checkpoint={weights}", f"run_dir={tmp_path}"]
    for task in ("evaluate", "sample"):
        refused = genbench(f"task={task}", *typed, check=False)
        assert "has files in it" in refused.stderr
    assert (tmp_path / "metrics.jsonl").read_text() == "mine"


def test_a_published_checkpoint_is_sampled_without_its_run(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By its address and sum, with the settings it was trained with, or the reason why not."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (weights,) = (trained / "checkpoints").glob("step-*3.safetensors")
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()
    typed = [*SMALL, "conditional=true", "n=8", f"checkpoint={weights.as_uri()}@sha256:{digest}"]
    genbench("task=sample", "model=ddpm", *typed, f"run_dir={tmp_path / 'theirs'}")
    ours = streamed(trained / "samples" / "samples.npz", "arr_0")
    found = [
        np.asarray(Image.open(path)) for path in sorted(tmp_path.glob("theirs/samples/ddim-step3/*.png"))
    ]
    assert np.array_equal(np.stack(found), ours[:8, :, :, 0])
    again = ["experiment=digits/ddpm", *typed, f"run_dir={tmp_path / 'theirs'}"]
    genbench("task=evaluate", *again, "metrics.n_samples=20")  # the same run in other words
    other = ["model=ddpm", *typed, "network.channels=16", f"run_dir={tmp_path / 'other'}"]
    refused = genbench("task=sample", *other, check=False)
    assert refused.returncode == 2
    assert "not those of this model" in refused.stderr
    assert "size mismatch for" in refused.stderr
