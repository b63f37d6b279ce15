"""From runs to a submission: what belongs together, what may be closed, what is published."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest

from genbench.configuration import group_hash
from genbench.errors import UserError
from genbench.leaderboard.page import build
from genbench.leaderboard.record import Result
from genbench.leaderboard.rules import budget_class, shipped_rules
from genbench.leaderboard.submission import figures, plain, read_entry
from genbench.leaderboard.submitting import submit
from genbench.leaderboard.untrusted import read_yaml


@pytest.fixture
def enter(tmp_path, rules):
    """`submit` into the test's own leaderboard, under the test's rules; returns (directory, lines said)."""

    def submit_here(runs, **options):
        said: list[str] = []
        options = {
            "to": tmp_path / "board",
            "rules": rules,
            "date": "2025-02-03",
            "say": said.append,
        } | options
        return submit(runs, **options), said

    return submit_here


def test_three_clean_seeds_make_a_closed_submission(enter, make_runs) -> None:
    directory, said = enter(make_runs((1.0, 1.3, 1.6)), name="Ada")
    assert said == []
    entry = read_entry(directory)
    assert entry.submission.division == "closed"
    assert [result.training.seed for result in entry.results] == [0, 1, 2]
    metric = next(metric for metric in entry.submission.figures.metrics if metric.name == "fd_digits")
    assert metric.mean == pytest.approx(1.3, rel=1e-15)
    assert metric.std == pytest.approx(0.3, rel=1e-14)
    assert metric.evaluation_std == pytest.approx(0.02, rel=1e-14)
    assert directory.parts[-3:-1] == ("submissions", "digits")
    assert directory.name == f"ddpm-ddim-{entry.submission.group_hash[:8]}-ada"


def test_the_bootstrap_error_is_in_the_row_where_one_evaluation_seed_must_do(enter, make_run) -> None:
    one = {"sampling.seeds": [0], "config.metrics.seeds": [0]}
    for number in (0, 1):
        one |= {f"metrics.{number}.std": None, f"metrics.{number}.n_seeds": 1}
    runs = [
        make_run(seed, one | {"metrics.0.bootstrap_std": error, "metrics.0.value": 1.0 + seed})
        for seed, error in enumerate((0.3, 0.4))
    ]
    directory, _ = enter(runs)
    metrics = read_entry(directory).submission.figures.metrics
    assert metrics[0].bootstrap_std == pytest.approx((0.125) ** 0.5, rel=1e-14)
    assert metrics[1].bootstrap_std is None
    assert "| ± 0.3536 by bootstrap |" in build(directory.parents[2])


def test_the_standard_tool_accepts_the_sums(enter, make_runs) -> None:
    directory, _ = enter(make_runs())
    ran = subprocess.run(
        ["sha256sum", "--check", "SHA256SUMS"], cwd=directory, capture_output=True, text=True
    )
    assert ran.returncode == 0, ran.stderr
    files = {path.relative_to(directory).as_posix() for path in directory.rglob("*") if path.is_file()}
    assert {line.split(": ")[0] for line in ran.stdout.splitlines()} == files - {"SHA256SUMS"}


def test_figures_do_not_depend_on_the_order_of_runs(enter, make_runs, tmp_path, rules) -> None:
    runs = make_runs((0.1, 0.2, 0.7))
    first, _ = enter(runs)
    second, _ = enter(runs[::-1], to=tmp_path / "other")
    for name in ("submission.json", "SHA256SUMS", "samples.png"):
        assert (first / name).read_bytes() == (second / name).read_bytes()
    results = read_entry(first).results
    assert figures(results) == figures(results[::-1])


def test_what_is_published_has_no_paths_and_the_same_hashes(enter, make_runs) -> None:
    runs = make_runs()
    original = Result.read(runs[0] / "result.json")
    directory, _ = enter(runs)
    for path in directory.rglob("*"):
        assert path.is_dir() or b"/home/someone" not in path.read_bytes(), path
    published = Result.read(directory / "results" / "seed0.json")
    assert published.command == ["model=ddpm"]
    assert published.config_hash == original.config_hash
    assert group_hash(read_yaml(directory / "config.yaml")) == original.group_hash
    assert published.metrics == original.metrics
    assert "seed" not in read_yaml(directory / "config.yaml")


NOT_CLOSED = [
    ({"git.dirty": True}, "uncommitted changes"),
    ({"git.dirty": None}, "uncommitted changes"),
    ({"git.commit": None, "git.dirty": None}, "unknown commit"),
    ({"git.commit": None}, "unknown commit"),
    ({"metrics.0.name": "fd_digits@500", "metrics.0.n_samples": 500}, "no Fréchet distance"),
    ({"metrics.0.extractor_sha256": "c" * 64}, "extractor digits with these weights"),
    ({"dataset.name": "elephants", "config.dataset.name": "elephants"}, "elephants is not one"),
    ({"dataset.name": "folder", "config.dataset.name": "folder"}, "folder is not one"),
    (
        {"dataset.resolution": 16, "config.dataset.resolution": 16},
        "16; the standard for digits is 8",
    ),
    ({"dataset.channels": 3, "config.dataset.channels": 3}, "channels 3"),
    ({"dataset.split": "test"}, "reference split test"),
    ({"sampling.n_samples": 4000, "config.metrics.n_samples": 4000}, "number of samples 4000"),
    ({"metrics.0.name": "kid_digits"}, "no Fréchet distance"),
    ({"training.steps": 0, "training.images_seen": 0}, "the weights were not trained here"),
]


@pytest.mark.parametrize(("changes", "reason"), NOT_CLOSED)
def test_each_rule_of_the_closed_division(enter, make_runs, tmp_path, changes, reason: str) -> None:
    runs = make_runs(changes=changes)
    with pytest.raises(UserError, match="--division open") as caught:
        enter(runs, division="closed")
    assert reason in str(caught.value)
    assert not (tmp_path / "board").exists()
    directory, said = enter(runs)
    assert read_entry(directory).submission.division == "open"
    assert len(said) == 1
    assert reason in said[0]


def test_two_seeds_outside_data_and_unequal_training_are_not_closed(enter, make_run, make_runs) -> None:
    with pytest.raises(UserError) as caught:
        enter(
            [make_run(0), make_run(1, {"training.steps": 3000, "git.dirty": True})],
            division="closed",
            outside_data="ImageNet",
        )
    for reason in (
        "2 training seed(s); at least 3",
        "outside data were used: ImageNet",
        "3000, 4000",
        "seed 1 ran",
    ):
        assert reason in str(caught.value)


def test_one_run_under_three_seeds_is_not_closed(enter, make_runs) -> None:
    with pytest.raises(UserError) as caught:
        enter(make_runs((1.1, 1.2, 1.1)), division="closed")
    assert "training seeds 0 and 2 have the same metrics to the last bit" in str(caught.value)
    assert "seeds 0 and 1" not in str(caught.value)


def test_runs_of_different_recipes_are_refused_with_their_folders_and_the_difference(enter, make_run) -> None:
    runs = [make_run(0), make_run(1, {"config.trainer.batch_size": 64, "training.batch_size": 64})]
    with pytest.raises(UserError) as caught:
        enter(runs)
    (line,) = (line for line in str(caught.value).splitlines() if "batch_size" in line)
    first, second = (run.name for run in runs)
    assert re.fullmatch(rf" *.*{first} and .*{second} differ in trainer\.batch_size: 128 -> 64", line)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"weights": "raw"}, "weights: ema -> raw"),
        ({"dataset.sha256": "b" * 64}, "track"),
        ({"metrics.0.reference_sha256": "b" * 64}, "fd_digits.reference_sha256"),
        ({"metrics.0.quantiser": "floor"}, "fd_digits.quantiser"),
        ({"metrics.1.name": "kid_digits"}, "metrics: "),
        ({"sampling.seeds": [2, 3]}, "evaluation seeds"),
        ({"model.parameters": 7}, "model"),
        ({"training.seed": 0, "config.seed": 0}, "training seed 0 occurs 2 times"),
    ],
)
def test_runs_measured_differently_are_refused(enter, make_run, changes, said: str) -> None:
    with pytest.raises(UserError) as caught:
        enter([make_run(0, name="a"), make_run(1, changes, name="b")])
    assert said in str(caught.value)


def test_unfinished_and_inconsistent_runs_are_refused_with_what_to_type(enter, make_runs) -> None:
    runs = make_runs()
    edited = json.loads((runs[1] / "result.json").read_text())
    edited["config"]["seed"] = 7
    (runs[1] / "result.json").write_text(json.dumps(edited))
    with pytest.raises(UserError, match=r"hashes are not those[\s\S]*task=evaluate"):
        enter(runs)
    (runs[0] / "result.json").unlink()
    with pytest.raises(UserError, match=r"no result.json[\s\S]*task=evaluate"):
        enter(runs)


def test_a_missing_or_false_grid_is_refused(enter, make_runs) -> None:
    runs = make_runs()
    (runs[0] / "samples" / "grid.png").write_bytes(b"GIF89a")
    with pytest.raises(UserError, match="not a PNG"):
        enter(runs)
    (runs[0] / "samples" / "grid.png").unlink()
    with pytest.raises(UserError, match="task=sample"):
        enter(runs)


def test_nothing_is_overwritten_and_nothing_half_written_stays(
    enter, make_runs, monkeypatch, tmp_path
) -> None:
    runs = make_runs()
    directory, _ = enter(runs)
    before = (directory / "SHA256SUMS").read_bytes()
    with pytest.raises(UserError, match="exists"):
        enter(runs)
    assert (directory / "SHA256SUMS").read_bytes() == before

    def die(*_: object) -> None:
        raise OSError("power cut")

    monkeypatch.setattr("os.rename", die)
    with pytest.raises(OSError, match="power cut"):
        enter(runs, name="another")
    assert [path.name for path in directory.parent.iterdir()] == [directory.name]


def test_one_run_is_open_and_has_no_spread(enter, make_run) -> None:
    directory, said = enter([make_run(5)], name="../../etc/x")
    row = read_entry(directory).submission.figures
    assert "1 training seed(s)" in said[0]
    assert {metric.std for metric in row.metrics} == {None}
    assert directory.name.endswith("-etc-x")


@pytest.mark.parametrize("name", ["..", "/", "a/../b", "Ünï cödé", "", "-", "x" * 200, "a\\b", ".hidden"])
def test_names_become_safe_file_names(name: str) -> None:
    made = plain(name)
    assert Path(made).name == made
    assert set(made) <= set("abcdefghijklmnopqrstuvwxyz0123456789_-")
    assert 0 < len(made) <= 40
    assert not made.startswith(("-", "."))


def test_budget_classes_have_their_bounds_inside() -> None:
    bounds = (0, 1_000_000, 1_000_001, 20_000_000, 20_000_001)
    assert [budget_class(count) for count in bounds] == ["S", "S", "M", "M", "L"]


def test_the_shipped_rules_are_read_from_the_configuration_and_the_cards() -> None:
    rules = shipped_rules()
    assert rules.extractors["inception"] == "6726825d"
    assert (rules.standards["digits"].n_samples, rules.standards["digits"].resolution) == (2000, 8)
    assert rules.standards["cifar10"].n_samples == 50_000
    assert rules.standards["digits"].shared
    assert not rules.standards["folder"].shared
    assert len(rules.extractors["digits"]) == 64
