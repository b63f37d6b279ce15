"""Runs side by side: what differs, what is best by its direction, what is unfinished, what is no run."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from omegaconf import OmegaConf
from PIL import Image

from genbench.cli import TASKS
from genbench.comparison.contender import Contender, names
from genbench.comparison.figure import draw, losses
from genbench.comparison.report import cost, report, scores, settings
from genbench.configuration import config_hash, group_hash
from genbench.errors import UserError
from genbench.leaderboard.record import Result
from genbench.words import spelled_out

BASELINES = Path(__file__).parents[2] / "baselines" / "digits"
RECORD = BASELINES / "edm" / "seed0" / "result.json"


def run(at: Path, finished: bool = True, grid: bool = True, rows: Any = None, **changes: Any) -> Contender:
    """A run made of a committed record: `changes` by dotted name, with `__` for the dots."""
    record = json.loads(RECORD.read_text())
    for name, value in changes.items():
        *groups, last = name.split("__")
        place: Any = record
        for group in groups:
            place = place[int(group)] if isinstance(place, list) else place[group]
        place[last] = value
    record["config_hash"], record["group_hash"] = config_hash(record["config"]), group_hash(record["config"])
    (at / "samples").mkdir(parents=True)
    OmegaConf.save(OmegaConf.create(record["config"]), at / "config.yaml")
    if finished:
        Result.model_validate(record).write(at / "result.json")
    if grid:
        name = "grid.png" if finished else "step-00000010.png"
        Image.new("RGB", (40, 40), (0, 200, 0)).save(at / "samples" / name)
    lines = rows or [{"step": s, "denoiser/loss": 1 / s, "images_seen": 8 * s} for s in range(1, 20)]
    (at / "metrics.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    return Contender.read(at)


def cells(lines: Any, title: str) -> list[str]:
    (found,) = (values for name, values in lines if name.startswith(title))
    return found


# ---------------------------------------------------------------------------------------------- settings


def test_only_settings_that_would_give_another_result_are_shown(tmp_path: Path) -> None:
    a = run(tmp_path / "a")
    b = run(tmp_path / "b", config__optim__lr=0.5, config__device="cuda", config__run_dir="elsewhere")
    assert settings([a, b]) == [("optim.lr", [str(a.config["optim"]["lr"]), "0.5"])]
    assert settings([a, a]) == []
    assert "settings that differ\n  none\n" in report([a, a])


def test_objects_of_different_classes_are_one_line_that_names_them(tmp_path: Path) -> None:
    a = run(tmp_path / "a")
    decode = {"_target_": "genbench.samplers.decode.Decode", "name": "decode", "temperature": 1.0}
    b = run(tmp_path / "b", config__sampler=decode)
    assert settings([a, b]) == [("sampler", ["heun", "decode"])]
    c = run(tmp_path / "c", config__sampler__steps=5)
    assert [title for title, _ in settings([a, c])] == ["sampler.steps"]


# ------------------------------------------------------------------------------------------------ scores


def test_the_best_is_marked_by_its_own_direction(tmp_path: Path) -> None:
    values = [(2.0, 5.0), (1.0, 4.0), (3.0, 6.0)]
    runs = [
        run(tmp_path / str(k), metrics__0__value=fd, metrics__1__value=score)
        for k, (fd, score) in enumerate(values)
    ]
    first = json.loads(RECORD.read_text())["metrics"]
    assert [first[0]["better"], first[1]["better"]] == ["lower", "higher"]
    table = scores(runs)
    assert ["*" in cell for cell in cells(table, first[0]["name"])] == [False, True, False]
    assert ["*" in cell for cell in cells(table, first[1]["name"])] == [False, False, True]
    assert all("*" not in cell for _, values in scores(runs[:1]) for cell in values)


def test_diagnostics_have_no_best(tmp_path: Path) -> None:
    changed = {"metrics__0__name": "c_t_digits", "metrics__0__better": "neither"}
    runs = [run(tmp_path / str(k), metrics__0__value=float(k), **changed) for k in range(2)]
    assert all("*" not in cell for cell in cells(scores(runs), "c_t_digits"))


def test_spreads_are_shown_with_what_they_are_over(tmp_path: Path) -> None:
    a = run(tmp_path / "a", metrics__0__bootstrap_std=0.25)
    seeds = {"metrics__0__std": 0.125, "metrics__0__n_seeds": 2, "sampling__seeds": [0, 1]}
    others = {f"metrics__{k}__{what}": v for k in (1,) for what, v in (("n_seeds", 2), ("std", 0.5))}
    b = run(tmp_path / "b", **seeds, **others)
    ((title, found),) = (line for line in scores([a, b]) if line[0].startswith("fd_digits"))
    assert title == "fd_digits (± bootstrap over images, evaluation seeds)"
    assert "± 0.25" in found[0]
    assert "± 0.12" in found[1]


@pytest.mark.parametrize("part", ["extractor_sha256", "reference_sha256"])
def test_values_that_were_judged_otherwise_are_not_compared(part: str, tmp_path: Path) -> None:
    a, b = run(tmp_path / "a"), run(tmp_path / "b", **{f"metrics__0__{part}": "f" * 64})
    found = [values for title, values in scores([a, b]) if title.startswith("fd_digits")]
    assert len(found) == 2
    assert [[cell == "-" for cell in values] for values in found] == [[False, True], [True, False]]
    assert all("*" not in cell for values in found for cell in values)


# -------------------------------------------------------------------------------------------- unfinished


def test_an_unfinished_run_says_how_far_it_came(tmp_path: Path) -> None:
    rows = [
        {"step": 4, "denoiser/loss": 0.5, "images_seen": 32, "train_seconds": 1.5},
        {"step": 4, "eval/fd_digits@500": 9.0},
        {"step": 8, "denoiser/loss": 0.25, "images_seen": 64, "train_seconds": 3.4},
        {"step": 8, "eval/fd_digits@500": 7.0},
        {"step": 10, "denoiser/loss": 0.25, "images_seen": 80, "train_seconds": 4.0},
    ]
    a = run(tmp_path / "a", finished=False, rows=rows)
    rows = [*rows[:3], {"step": 8, "eval/fd_digits@500": 8.0}]
    b = run(tmp_path / "b", finished=False, grid=False, rows=rows)
    assert cells(scores([a, b]), "fd_digits@500") == ["7 at step 8 *", "8 at step 8"]
    table = cost([a, b])
    assert cells(table, "training steps") == ["10", "8"]
    assert cells(table, "training images") == ["80", "64"]
    assert cells(table, "training seconds") == ["4", "3"]
    assert cells(table, "state")[0].startswith("unfinished, of ")
    assert a.curve("eval/fd_digits@500") == ([32, 64], [9.0, 7.0])


def test_a_folder_that_was_only_evaluated_in_stands_for_its_evaluation(tmp_path: Path) -> None:
    """As task=evaluate leaves one, of a published checkpoint: a configuration and no training."""
    evaluated = run(tmp_path / "a" / "evaluations" / "ddim-step8-0123")
    for file in ("config.yaml", "metrics.jsonl"):
        (evaluated.path / file).unlink()
    (tmp_path / "a" / "checkpoints").mkdir()
    (tmp_path / "a" / "config.yaml").write_text("seed: 0\n")
    found = Contender.read(tmp_path / "a")
    assert found.path == tmp_path / "a"
    assert found.result == evaluated.result
    assert found.grid == evaluated.grid
    assert cells(cost([found]), "state") == ["finished"]

    run(tmp_path / "a" / "evaluations" / "heun-step8-4567")
    with pytest.raises(
        UserError, match=r"several evaluations; type one of them: .*ddim-step8.*, .*heun-step8"
    ):
        Contender.read(tmp_path / "a")
    # What was trained, and then evaluated, is the run and not its evaluation.
    (tmp_path / "a" / "checkpoints" / "step-8.json").write_text("{}")
    assert Contender.read(tmp_path / "a").result is None


def test_what_a_finished_run_cost_is_its_records(tmp_path: Path) -> None:
    a = run(tmp_path / "a")
    assert a.result is not None
    table = cost([a])
    assert cells(table, "training images") == [f"{a.result.training.images_seen:,}"]
    assert cells(table, "parameters") == [f"{a.result.model.parameters:,}"]
    assert cells(table, "evaluations an image") == [f"{a.result.sampling.nfe_mean:g}"]
    assert cells(table, "state") == ["finished"]


def test_an_evaluation_is_compared_like_a_run(tmp_path: Path) -> None:
    run(tmp_path / "a")
    (tmp_path / "a" / "config.yaml").unlink()
    (tmp_path / "a" / "metrics.jsonl").unlink()
    assert "fd_digits" in report([Contender.read(tmp_path / "a")])


@pytest.mark.parametrize(
    ("contents", "said"), [(None, "is no folder"), ("", "holds no run"), ("{", "not JSON|JSON")]
)
def test_what_is_no_run_is_refused_in_one_line(contents: str | None, said: str, tmp_path: Path) -> None:
    folder = tmp_path / "x"
    if contents is not None:
        folder.mkdir()
    if contents:
        (folder / "result.json").write_text(contents)
    with pytest.raises(UserError, match=said) as refusal:
        Contender.read(folder)
    assert "\n" not in str(refusal.value)


# ---------------------------------------------------------------------------------------------- pictures


def test_the_picture_shows_every_run(tmp_path: Path) -> None:
    runs = [run(tmp_path / "a"), run(tmp_path / "b", finished=False), run(tmp_path / "c", grid=False)]
    with Image.open(draw(runs, tmp_path / "out" / "x.png")) as picture:
        pixels = np.asarray(picture.convert("RGB")).astype(int)
    lower = pixels[pixels.shape[0] // 2 :]
    green = (lower == (0, 200, 0)).all(-1).any(0)  # of the grids that `run` made
    left = np.array_split(green, 3)
    assert [bool(third.any()) for third in left] == [True, True, False]


def test_a_loss_that_was_logged_once_is_drawn_as_a_point(tmp_path: Path) -> None:
    """A line through one point has no extent; `ink` is what its panel has besides that of a run without."""

    def ink(*rows: dict[str, float]) -> int:
        name = str(len(list(tmp_path.iterdir())))
        figure = Figure()
        FigureCanvasAgg(figure)
        axes = figure.add_axes((0, 0, 1, 1), xlim=(0, 160), ylim=(0, 1))
        losses(axes, run(tmp_path / name, rows=[*rows, {"step": 10, "images_seen": 80}]), "a", "C0")
        figure.canvas.draw()
        return int((np.asarray(figure.canvas.buffer_rgba())[..., :3] == (0x1F, 0x77, 0xB4)).all(-1).sum())

    assert ink() == 0
    assert ink({"step": 10, "denoiser/loss": 0.5, "images_seen": 80}) > 10


def test_runs_are_named_by_as_little_as_tells_them_apart(tmp_path: Path) -> None:
    runs = [run(tmp_path / place) for place in ("x/a", "x/b", "y/a")]
    assert names(runs) == ["x/a", "x/b", "y/a"]
    assert names(runs[:2]) == ["a", "b"]


# ------------------------------------------------------------------------------------------------- words


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("compare a b", "task=compare runs=['a','b']"),
        ("compare a b run_dir=c", "task=compare runs=['a','b'] run_dir=c"),
        ("evaluate runs/a sampler=heun", "task=evaluate run_dir=runs/a sampler=heun"),
        ("score x.npz dataset=cifar10", "task=score images=x.npz dataset=cifar10"),
        ("speed", "task=speed"),
        ("solvers --cfg job", "task=solvers --cfg job"),
        ("task=train seed=1", "task=train seed=1"),
        ("seed=1 compare a b", "seed=1 task=compare runs=['a','b']"),
        ("run_dir=a evaluate b/c n=2", "run_dir=a task=evaluate run_dir=b/c n=2"),
        ("seed=1 -m compare", "seed=1 -m compare"),
        ("seed=1 copmare", "seed=1 copmare"),
        ("", ""),
    ],
)
def test_a_task_may_be_typed_by_its_name(typed: str, meant: str) -> None:
    assert spelled_out(typed.split(), TASKS) == meant.split()


@pytest.mark.parametrize(
    ("typed", "said"),
    [("evaluate a b", "one word without a name, found a b"), ("speed a", "nothing without")],
)
def test_words_that_mean_nothing_are_refused(typed: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        spelled_out(typed.split(), TASKS)


def test_it_is_a_command_of_its_own_and_needs_no_torch(tmp_path: Path) -> None:
    odd = ["a run", "b's [1,2]"]
    for name in odd:
        run(tmp_path / name)
    code = "import sys; from genbench.cli import main; main(); sys.exit('torch' in sys.modules)"
    command = [sys.executable, "-c", code, "compare", *odd, "run_dir=out"]
    finished = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert finished.returncode == 0, finished.stdout + finished.stderr
    assert "b's [1,2]" in finished.stdout
    assert (tmp_path / "out" / "comparison.txt").read_text() in finished.stdout
    assert (tmp_path / "out" / "comparison.png").is_file()
    command[3:] = ["compare", odd[0]]
    refused = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert refused.returncode == 2
    assert refused.stderr == (
        "genbench: compare needs runs to compare: type compare RUN RUN, folders of two or more.\n"
    )
