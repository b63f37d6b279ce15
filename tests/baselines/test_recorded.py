"""What is kept of runs, the page made of it, and whether it is made again."""

from __future__ import annotations

import copy
import json
import threading
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from genbench.baselines import __main__ as entry
from genbench.baselines import checking, recipes, reproducing
from genbench.baselines.__main__ import main
from genbench.baselines.recording import record
from genbench.baselines.shelf import baselines
from genbench.comparison.contender import Contender
from genbench.configuration import config_hash, group_hash
from genbench.errors import UserError
from genbench.leaderboard.record import Result

COMMITTED = Path(__file__).parents[2] / "leaderboard" / "submissions" / "digits"
VALUES = {0: 0.80, 1: 0.90, 2: 0.85}


@pytest.fixture(scope="module")
def template():
    (path,) = COMMITTED.glob("ddpm-ddim-*-genbench/results/seed0.json")
    return json.loads(path.read_text())


@pytest.fixture
def run(template, tmp_path, compose):
    """run(seed, …): the folder of a finished run of experiment=digits/ddpm, as a user has it."""

    def made(seed=0, command=("experiment=digits/ddpm",), dirty=False, value=None):
        folder = tmp_path / "runs" / f"{len(list(tmp_path.glob('runs/*')))}"
        (folder / "samples").mkdir(parents=True)
        result = copy.deepcopy(template)
        result["config"] = {**compose(*command, f"seed={seed}"), "run_dir": str(folder)}
        result["config"]["trainer"]["precision"] = "bf16"  # what the device took of auto
        result["config_hash"], result["group_hash"] = (
            config_hash(result["config"]),
            group_hash(result["config"]),
        )
        result["command"] = [*command, f"seed={seed}", f"run_dir={folder}", "data_root=/home/me"]
        result["training"]["seed"], result["git"]["dirty"] = seed, dirty
        result["metrics"][0]["value"] = VALUES[seed] if value is None else value
        (folder / "result.json").write_text(json.dumps(result))
        (folder / "metrics.jsonl").write_text(
            '{"step": 100, "time": 1.0, "denoiser/loss": 0.5, "images_seen": 12800.0, "train_seconds": 9.0}\n'
            '{"step": 100, "time": 1.5, "eval/fd_digits@500": 3.5}\n'
        )
        Image.new("L", (16, 16)).save(folder / "samples" / "grid.png")
        (folder / "checkpoints").mkdir()
        return folder

    return made


def test_a_recorded_run_is_read_like_a_run_and_says_nothing_of_its_machine(run, tmp_path):
    root = tmp_path / "baselines"
    (kept,) = record([run(0), run(1), run(2)], root)
    assert kept == root / "digits" / "ddpm"
    text = (kept / "seed1" / "result.json").read_text()
    assert "/home/me" not in text
    assert str(tmp_path) not in text
    contender = Contender.read(kept / "seed1")
    assert contender.scores()["fd_digits"].value == VALUES[1]
    assert contender.curve("denoiser/loss") == ([12800.0], [0.5])
    assert contender.grid is not None
    assert not (kept / "seed1" / "checkpoints").exists()
    (baseline,) = baselines(root)
    assert [result.training.seed for result in baseline.results] == [0, 1, 2]
    assert baseline.figures.metrics[0].mean == pytest.approx(0.85)
    assert (kept / "curves.png").is_file()


@pytest.mark.parametrize(
    ("typed", "found"),
    [
        ({"command": ("experiment=digits/ddpm", "optim.lr=1")}, "optim.lr=1.*conf/experiment"),
        ({"dirty": True}, "changed checkout"),
    ],
)
def test_what_is_no_experiment_is_refused_and_nothing_written(run, tmp_path, typed, found):
    with pytest.raises(UserError, match=found):
        record([run(0), run(1, **typed)], tmp_path / "baselines")
    assert not (tmp_path / "baselines").exists()


def test_what_would_not_be_one_baseline_is_refused_and_nothing_changed(run, tmp_path):
    root = tmp_path / "baselines"
    record([run(0), run(1)], root)
    before = (root / "digits" / "ddpm" / "seed0" / "result.json").read_bytes()
    other = json.loads((first := run(0)).joinpath("result.json").read_text())
    other["metrics"][0]["reference_sha256"] = "0" * 64
    (first / "result.json").write_text(json.dumps(other))
    with pytest.raises(UserError, match="reference"):
        record([first], root)
    with pytest.raises(UserError, match="several runs of one seed"):
        record([run(2), run(2)], root)
    (bare := run(2)).joinpath("metrics.jsonl").unlink()
    with pytest.raises(UserError, match=r"no metrics\.jsonl"):
        record([bare], root)
    assert (root / "digits" / "ddpm" / "seed0" / "result.json").read_bytes() == before
    assert not (root / "digits" / "ddpm" / "seed2").exists()


def test_settings_say_which_experiment_it_is_however_they_were_typed(run, tmp_path):
    typed = ("model=score_sde", "corruption=ve", "dataset=digits", "metrics=likelihood")
    assert record([run(0, command=typed)], tmp_path) == [tmp_path / "digits" / "score_sde-ve"]


def test_the_page_is_made_of_the_records_alone_and_goes_stale(run, tmp_path, capsys):
    root = tmp_path / "baselines"
    assert main(["--root", str(root), "record", *map(str, (run(0), run(1), run(2)))]) == 0
    text = (root / "README.md").read_text()
    assert "[`digits/ddpm`](digits/ddpm/curves.png)" in text
    assert "0.850 ± 0.050" in text  # the sample deviation of .80, .85, .90
    assert "digits/ddpm/seed0/samples/grid.png" in text
    assert "`cifar10/edm` | EDM | 35 | 1.97" in text
    assert (root / "digits" / "quality.png").is_file()
    assert main(["--root", str(root), "check"]) == 0
    (root / "README.md").write_text(text.replace("0.850", "0.840"))
    assert main(["--root", str(root), "check"]) == 1
    assert "baselines build" in capsys.readouterr().err
    assert main(["--root", str(root), "build"]) == 0
    assert (root / "README.md").read_text() == text


def test_tables_inside_written_pages_are_filled_in_and_go_stale(run, tmp_path, capsys):
    root, page = tmp_path / "baselines", tmp_path / "README.md"
    page.write_text("Before.\n<!-- recorded: digits/ddpm -->\n<!-- end -->\nBetween, 0.99.\n<!-- end -->\n")
    assert main(["--root", str(root), "record", *map(str, (run(0), run(1), run(2)))]) == 0
    text = page.read_text()
    assert "| [`digits/ddpm`](baselines/digits/ddpm/curves.png) | 1.00 M | ddim, 50 | 0.850 ± 0.050 |" in text
    assert text.startswith("Before.\n<!-- recorded: digits/ddpm -->\n| `experiment=` |")
    assert text.endswith("| 3 |\n<!-- end -->\nBetween, 0.99.\n<!-- end -->\n")
    assert main(["--root", str(root), "check"]) == 0
    page.write_text(text.replace("0.850", "0.840"))
    assert main(["--root", str(root), "check"]) == 1
    assert f"{page} is not what the records give" in capsys.readouterr().err
    assert main(["--root", str(root), "build"]) == 0
    assert page.read_text() == text
    page.write_text(text.replace("recorded: digits/ddpm", "recorded: digits/ddpm digits/dpm"))
    assert main(["--root", str(root), "build"]) == 1
    assert "digits/dpm, of which there is no record" in capsys.readouterr().err


def test_a_recipe_that_has_changed_since_is_named(run, tmp_path, monkeypatch):
    root = tmp_path / "baselines"
    record([run(0)], root)
    main(["--root", str(root), "build"])
    composed = recipes.cli.composed

    def today(overrides):
        config = composed(overrides)
        return {**config, "optim": {**config["optim"], "lr": 0.5}, "new": {"setting": 1}}

    monkeypatch.setattr(recipes.cli, "composed", today)
    (problem,) = checking.problems(root)
    assert problem.startswith("digits/ddpm: optim.lr: ")


def found(baseline, value, torch="same"):
    first = baseline.first.model_dump(mode="json")
    first["metrics"][0]["value"] = value
    if torch != "same":
        first["versions"]["torch"] = torch
    return Result.model_validate(first)


def test_on_the_same_machine_the_bits_must_agree(run, tmp_path):
    record([run(0), run(1), run(2)], tmp_path / "b")
    (baseline,) = baselines(tmp_path / "b")
    assert all(each.holds for each in reproducing.compare(baseline, found(baseline, 0.8)))
    worse = reproducing.compare(baseline, found(baseline, 0.8 + 1e-15))
    assert [each.metric for each in worse if not each.holds] == ["fd_digits"]


def test_elsewhere_a_score_must_lie_where_another_seed_would(run, tmp_path):
    record([run(0), run(1), run(2)], tmp_path / "b")
    (baseline,) = baselines(tmp_path / "b")
    # Student's 99.5 % quantile of two degrees is 9.925; .05 sqrt(4 / 3) of it is .573.
    for value, holds in ((0.85 + 0.57, True), (0.85 + 0.58, False), (0.85 - 0.58, False)):
        first = reproducing.compare(baseline, found(baseline, value, torch="9.9"))[0]
        assert first.holds is holds, first
        assert first.recorded == pytest.approx(0.85)


def test_one_seed_elsewhere_tells_nothing(run, tmp_path):
    record([run(0)], tmp_path / "b")
    (baseline,) = baselines(tmp_path / "b")
    elsewhere = reproducing.compare(baseline, found(baseline, 99.0, torch="9.9"))
    assert {each.holds for each in elsewhere} == {None}
    assert reproducing.compare(baseline, found(baseline, 99.0))[0].holds is False


def test_a_recipe_in_another_precision_is_another_recipe(run, tmp_path):
    record([run(0)], tmp_path)
    recorded = baselines(tmp_path)[0].first.config
    with recipes.composing():
        assert recipes.departures(recorded, ["experiment=digits/ddpm"]) == []
        found = recipes.departures(recorded, ["experiment=digits/ddpm", "sampler.precision=bf16"])
    assert [line.partition(":")[0] for line in found] == ["sampler.precision"]


def test_a_precision_left_to_the_device_is_the_recorded_one(compose):
    recorded = compose("experiment=digits/ddpm")
    recorded["trainer"]["precision"], recorded["sampler"]["precision"] = "bf16", "bf16"
    typed = ["experiment=digits/ddpm", "trainer.precision=auto"]
    with recipes.composing():
        assert recipes.departures(recorded, [*typed, "sampler.precision=auto"]) == []
        del recorded["sampler"]["precision"]  # older than the setting
        assert recipes.departures(recorded, [*typed, "sampler.precision=auto"]) == []
        (line,) = recipes.departures(recorded, [*typed, "trainer.precision=fp32"])
        assert line == 'trainer.precision: "bf16" -> "fp32"'


def test_reproducing_types_what_was_typed_with_as_many_threads(run, tmp_path, monkeypatch, capsys):
    root = tmp_path / "b"
    record([run(0), run(1)], root)
    (baseline,) = baselines(root)
    threads = baseline.first.device.name.split(", ")[1].split()[0]
    ran = []

    def pretend(command, check, env, stdout):
        ran.append((command[1:], env["OMP_NUM_THREADS"]))
        folder = Path(next(word for word in command if word.startswith("run_dir=")).removeprefix("run_dir="))
        folder.mkdir(parents=True)
        found(baseline, 0.8 if len(ran) == 1 else 0.7).write(folder / "result.json")

    monkeypatch.setattr(reproducing.subprocess, "run", pretend)
    assert main(["--root", str(root), "reproduce", "digits/ddpm"]) == 0
    assert ran[0][0][:4] == ["-m", "genbench", "experiment=digits/ddpm", "seed=0"]
    assert ran[0][1] == threads
    assert "fd_digits 0.8: the same" in capsys.readouterr().out
    assert main(["--root", str(root), "reproduce"]) == 1
    assert "fd_digits 0.7: recorded 0.8" in capsys.readouterr().out
    assert main(["--root", str(root), "reproduce", "digits/none"]) == 1
    assert "Recorded are digits/ddpm" in capsys.readouterr().err


def test_several_are_reproduced_at_a_time_and_told_in_order(run, tmp_path, monkeypatch, capsys):
    root = tmp_path / "b"
    record([run(0)], root)
    (one,) = baselines(root)
    two = replace(one, path=one.path.with_name("two"))
    monkeypatch.setattr(entry, "_chosen", lambda options: [one, two])
    both = threading.Barrier(2, timeout=30)  # passed by two at once, or never

    def slowly(baseline, folder):
        both.wait()
        return found(one, 0.8)

    monkeypatch.setattr(entry, "again", slowly)
    assert main(["--root", str(root), "reproduce", "--jobs", "2"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(":")[0] for line in lines] == ["digits/ddpm", "digits/two"]
