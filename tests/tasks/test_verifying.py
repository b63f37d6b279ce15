"""`verify`: a submission's images drawn again from its checkpoint; whose they are not is told apart."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from command_line import genbench

from genbench.configuration import conf_dir, config_hash, determining, group_hash
from genbench.errors import UserError
from genbench.harness import assembly
from genbench.leaderboard import verifying
from genbench.leaderboard.__main__ import main
from genbench.leaderboard.evidence import from_bytes, to_bytes
from genbench.leaderboard.record import Git, Result
from genbench.leaderboard.record import to_bytes as record_bytes
from genbench.leaderboard.rules import shipped_rules
from genbench.leaderboard.standings import read_rows
from genbench.leaderboard.submission import read_entry
from genbench.leaderboard.submitting import config_text, determines, submit, sums
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


def test_who_verified_may_leave_a_mark(entered, run, monkeypatch, capsys) -> None:
    argument = [str(entered), str(run), "--device", "cpu", "--scores"]
    monkeypatch.setattr(verifying, "git_state", lambda: Git(commit="ab" * 20, dirty=True))
    assert main(["verify", *argument, "--by", "Emmy"]) == 1
    assert "would not be recorded: made with uncommitted changes" in capsys.readouterr().err
    monkeypatch.setattr(verifying, "git_state", lambda: Git(commit="ab" * 20, dirty=False))
    assert main(["verify", *argument, "--by", "ADA"]) == 1
    assert "ADA is its own submitter" in capsys.readouterr().err
    assert main(["verify", *argument]) == 0
    assert not (entered / "verified.json").exists()
    assert main(["verify", *argument, "--by", "Emmy", "--note", "trained again here"]) == 0
    said = capsys.readouterr().out
    assert f"Next: python -m genbench.leaderboard build --to {entered.parents[2]}" in said
    ((review,), found) = read_entry(entered).verified.reviews, verified(entered, run, scores=True)
    assert (review.by, review.note, review.seeds) == ("Emmy", "trained again here", found)
    assert review.device.type == "cpu"
    (row,) = read_rows(entered.parents[2])
    assert [word for word, _ in row.marks] == ["reproduced"]


def test_another_runs_images_disagree(entered, run, monkeypatch, capsys) -> None:
    """A forger who keeps every sum and score, and only shows other images."""
    path = entered / "evidence" / "seed0.safetensors"
    result = Result.read(entered / "results" / "seed0.json")
    held = from_bytes(path.read_bytes(), path, result, shipped_rules())
    path.write_bytes(to_bytes(held.images[::-1], held.moments))
    reseal(entered)
    assert main(["check", str(entered)]) == 0  # nothing that could be derived without the checkpoint is wrong
    capsys.readouterr()
    assert main(["verify", str(entered), str(run), "--device", "cpu"]) == 1
    printed = capsys.readouterr().out
    assert printed.startswith("DISAGREES seed 0: of 64 images 0 are identical")
    monkeypatch.setattr(verifying, "git_state", lambda: Git(commit="ab" * 20, dirty=False))
    assert main(["verify", str(entered), str(run), "--device", "cpu", "--by", "Emmy"]) == 1
    assert not (entered / "verified.json").exists()


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
        ("+experiment@_global_=../../runs/evil/config", "could name code"),
        ("experiment=../runs/evil/config", "could name code"),
        ("experiment=digits/evil", "does not offer"),
        ("metrics=[digits,evil]", "does not offer"),
        ("metrics/likelihood=evil", "does not offer"),
        ("evil/metrics=digits", "does not offer"),
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


def climbing(run: Path, honest: Path, sentinel: Path) -> tuple[Path, str]:
    """A submission whose config.yaml would make a folder, and the override that climbs to it."""
    result = Result.read(run / "result.json")
    config = determining(result.config)
    config["model"]["extra"] = {"_target_": "os.mkdir", "path": str(sentinel)}
    forged_hash = group_hash(config)
    submission = honest.with_name(honest.name.replace(group_hash(result.config)[:8], forged_hash[:8]))
    honest.rename(submission)
    climb = os.path.relpath(submission / "config", conf_dir() / "experiment")
    override = f"+experiment@_global_={climb}"
    kept = [each for each in result.command if determines(each)]
    forged = result.model_copy(
        update={
            "config": config,
            "command": [*kept, override],
            "config_hash": config_hash(config),
            "group_hash": forged_hash,
        }
    )
    (submission / "results" / "seed0.json").write_bytes(record_bytes(forged))
    (submission / "config.yaml").write_text(config_text(forged))
    path = submission / "submission.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "group_hash": forged_hash}))
    reseal(submission)
    return submission, override


def test_a_command_that_climbs_to_the_submissions_own_configuration_is_not_run(
    entered, run, tmp_path, monkeypatch
) -> None:
    """Three doors, of which each holds where those before it are open."""
    sentinel = tmp_path / "ran"
    submission, override = climbing(run, entered, sentinel)
    doors = [
        ("could name code", "safe", lambda each: True),
        ("does not offer", "_offered", lambda *each: True),
        ("names os.mkdir, which", "_known_targets", lambda folder: {"os.mkdir", *known(folder)}),
    ]
    known = verifying._known_targets
    for said, door, opened in doors:
        with pytest.raises(UserError, match=said) as caught:
            verified(submission, f"0={run}")
        assert said.startswith("names") or repr(override) in str(caught.value)
        assert not sentinel.exists()
        monkeypatch.setattr(verifying, door, opened)
    with pytest.raises(UserError, match="could not be built"):
        verified(submission, f"0={run}")
    assert sentinel.exists()  # so the submission was one that could have done it


def test_code_is_known_by_its_whole_name_at_any_depth() -> None:
    hidden = [[{"_target_": "genbench.cli.os.system"}]]
    config = {"a": {"_target_": "torch.nn.SiLU", "b": hidden}, "_target_": None}
    found = set(verifying._targets(config))
    assert found - verifying._known_targets(conf_dir()) == {"genbench.cli.os.system"}


@pytest.mark.parametrize(
    ("typed", "taken"),
    [
        (["sampler.precision=bf16"], {"trainer": "fp32", "sampler": "bf16"}),
        (["sampler.precision=auto", "trainer.precision=auto"], {"trainer": "bf16", "sampler": "bf16"}),
    ],
    ids=["bf16", "auto"],
)
def test_networks_are_evaluated_in_the_recorded_precision(tmp_path, monkeypatch, typed, taken) -> None:
    """Of a device that multiplies in bfloat16, on one that need not."""
    monkeypatch.setattr(assembly, "multiplies_in_bfloat16", lambda device: True)
    run = tmp_path / "run"
    # Trained fast and raw: in another precision no image is within a grey level.
    learnt = ["trainer.steps=30", "optim.lr=0.02", "ema=none", "metrics.n_samples=64"]
    genbench(*SMALL, "trainer.precision=fp32", *learnt, *typed, f"run_dir={run}")
    submission = submit([run], name="ada", to=tmp_path / "board", say=lambda line: None)
    monkeypatch.setattr(assembly, "multiplies_in_bfloat16", lambda device: False)
    config = recompose(Result.read(submission / "results" / "seed0.json"))
    assert {part: config[part]["precision"] for part in taken} == taken
    (found,) = verified(submission, run)
    assert (found.images, found.identical) == (64, 64)


def test_another_configuration_advises_a_commit_that_can_verify(run) -> None:
    result = Result.read(run / "result.json")
    kept = [each for each in result.command if determines(each)]
    with pytest.raises(UserError) as caught:
        recompose(result.model_copy(update={"command": [*kept, "optim.lr=0.5"]}))
    advice = f"Where that commit has `verify` itself, type: git checkout {result.git.commit}"
    assert str(caught.value).endswith(advice)
    assert "\n" not in str(caught.value)


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
