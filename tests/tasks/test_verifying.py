"""`verify`: a submission's images drawn again from its checkpoint; whose they are not is told apart."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from command_line import genbench

from genbench.errors import UserError
from genbench.leaderboard.__main__ import main
from genbench.leaderboard.evidence import from_bytes, to_bytes
from genbench.leaderboard.record import Result
from genbench.leaderboard.rules import shipped_rules
from genbench.leaderboard.submitting import submit, sums
from genbench.leaderboard.untrusted import sha256
from genbench.leaderboard.verifying import Verification, compare, recompose, verify

SMALL = [
    "logger=none",
    "device=cpu",
    "trainer.steps=6",
    "trainer.batch_size=8",
    "network.channels=8",
    "sampler.steps=3",
    "metrics.n_samples=70",
]


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "a"
    genbench(*SMALL, f"run_dir={folder}")
    return folder


@pytest.fixture
def entered(run, tmp_path) -> Path:
    return submit([run], name="ada", to=tmp_path / "board", say=lambda line: None)


def verified(submission: Path, *runs: Path | str, **options) -> list[Verification]:
    return list(verify(submission, [str(each) for each in runs], device="cpu", **options))


def reseal(submission: Path) -> None:
    """Makes all sums agree again, as a careful forger would."""
    path = submission / "submission.json"
    value = json.loads(path.read_text())
    for item in value["results"]:
        item["sha256"] = sha256((submission / item["file"]).read_bytes())
    path.write_text(json.dumps(value))
    files = {p.relative_to(submission).as_posix(): p for p in submission.rglob("*") if p.is_file()}
    del files["SHA256SUMS"]
    (submission / "SHA256SUMS").write_text(sums({name: p.read_bytes() for name, p in files.items()}))


def test_a_checkpoint_draws_its_submission_again(entered, run) -> None:
    (found,) = verified(entered, run, scores=True)
    # 64 images are drawn here as part of 64, for the record as part of 70: within a level, not always equal.
    assert (found.images, found.near) == (64, 64)
    assert found.largest <= 1
    assert found.agrees
    scores = {score.name: score for score in found.scores}
    assert scores["fd_digits@70"].found == pytest.approx(scores["fd_digits@70"].recorded, rel=1e-6)
    (checkpoint,) = (run / "checkpoints").glob("step-*.safetensors")
    assert verified(entered, checkpoint)[0].agrees
    assert verified(entered, f"0={run}")[0].agrees


def test_another_runs_images_disagree(entered, run, tmp_path, capsys) -> None:
    """A forger who keeps every sum and score, and only shows other images."""
    path = entered / "evidence" / "seed0.safetensors"
    result = Result.read(entered / "results" / "seed0.json")
    held = from_bytes(path.read_bytes(), path, result, shipped_rules())
    path.write_bytes(to_bytes(held.images.flip(0), held.moments))
    reseal(entered)
    assert main(["check", str(entered)]) == 0  # nothing that could be derived without the checkpoint is wrong
    capsys.readouterr()
    assert main(["verify", str(entered), str(run), "--device", "cpu"]) == 1
    printed = capsys.readouterr().out
    assert printed.startswith("DISAGREES seed 0: of 64 images 0 are identical")


def test_an_invented_score_disagrees(entered, run) -> None:
    """Inception-like scores cannot be derived from small moments; a second look at all samples sees them."""
    for name in ("results/seed0.json", "submission.json"):
        value = json.loads((entered / name).read_text())
        metrics = value["figures"]["metrics"] if "figures" in value else value["metrics"]
        metric = next(each for each in metrics if each["name"] == "is_digits@70")
        key = "mean" if "mean" in metric else "value"
        metric[key] *= 2
        (entered / name).write_text(json.dumps(value))
    reseal(entered)
    (found,) = verified(entered, run, scores=True)
    assert [score.name for score in found.scores if not score.agrees] == ["is_digits@70"]
    assert found.near == found.images
    assert not found.agrees


def test_other_weights_disagree(entered, run, tmp_path) -> None:
    other = tmp_path / "other"
    genbench(*SMALL, "seed=1", f"run_dir={other}")
    with pytest.raises(UserError, match="no checkpoint of this submission \\(seed 0 at step 6\\)"):
        verified(entered, other)
    (found,) = verified(entered, f"0={other}")
    # Six steps of training: the noise is most of what is seen, and yet the weights are told apart.
    assert not found.agrees
    assert found.near < 40
    assert found.equal < 0.95


def test_what_is_not_in_order_is_not_verified(entered, run) -> None:
    (entered / "samples.png").write_bytes(b"GIF89a")
    with pytest.raises(UserError, match="not in order"):
        verified(entered, run)


def test_without_images_there_is_nothing_to_compare(entered, run) -> None:
    shutil.rmtree(entered / "evidence")
    reseal(entered)
    with pytest.raises(UserError, match="holds no images of seed 0"):
        verified(entered, run)


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("+model.extra._target_=os.system", "could name code"),
        ("hydra.searchpath=[pkg://evil]", "could name code"),
        ("model=$(touch hacked)", "could name code"),
        ("optim.lr=0.5", "optim.lr: 0.001 -> 0.5"),
    ],
)
def test_commands_that_do_more_than_they_say_are_not_run(run, override: str, said: str) -> None:
    result = Result.read(run / "result.json")
    command = [each for each in result.command if not each.startswith(("logger", "device", "run_dir"))]
    assert recompose(result.model_copy(update={"command": command}))["model"]["name"] == "ddpm"
    with pytest.raises(UserError) as caught:
        recompose(result.model_copy(update={"command": [*command, override]}))
    assert said in str(caught.value)


def test_a_grey_level_anywhere_or_a_hundredth_of_the_pixels_may_differ() -> None:
    held = torch.zeros(20, 5, 5, 1, dtype=torch.uint8)
    assert compare(0, held, held + 1).agrees
    assert not compare(0, held, held + 2).agrees
    one = held.clone()
    one[0] = 200
    found = compare(0, held, one + 1)  # 19 of 20 images are near
    assert (found.images, found.identical, found.near, found.largest) == (20, 0, 19, 201)
    assert found.agrees
    few = held.clone()
    few[:5, 0, 0] = 200  # 5 of 500 pixels: tokens
    assert compare(0, held, few).agrees
    few[5, 0, 0] = 200
    assert not compare(0, held, few).agrees
