"""What `check` finds: every tampering, named; and nothing in what `submit` wrote."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from fakes import fill

from genbench.leaderboard import check as check_with_shipped_rules
from genbench.leaderboard import checking
from genbench.leaderboard.checking import Problem, check, examine
from genbench.leaderboard.page import write
from genbench.leaderboard.submission import submission_directories
from genbench.leaderboard.submitting import submit, sums
from genbench.leaderboard.untrusted import sha256


@pytest.fixture
def board(tmp_path, rules, make_runs) -> Path:
    """A leaderboard with one closed submission and one open one, in order."""
    root = tmp_path / "board"
    submit(make_runs(), name="ada", to=root, rules=rules, say=lambda line: None)
    submit(make_runs((2.0,), name="other"), name="bob", to=root, rules=rules, say=lambda line: None)
    write(root)
    return root


@pytest.fixture
def directory(board: Path) -> Path:
    return next((board / "submissions" / "digits").glob("*-ada"))


def reseal(directory: Path) -> None:
    """Makes all sums agree again, as a careful forger would."""
    path = directory / "submission.json"
    value = json.loads(path.read_text())
    for item in value["results"]:
        item["sha256"] = sha256((directory / item["file"]).read_bytes())
    path.write_text(json.dumps(value))
    files = {p.relative_to(directory).as_posix(): p for p in directory.rglob("*") if p.is_file()}
    files.pop("SHA256SUMS")
    (directory / "SHA256SUMS").write_text(sums({name: p.read_bytes() for name, p in files.items()}))


def change(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def found(path: Path, rules) -> str:
    return "\n".join(map(str, check(path, rules)))


def test_what_submit_wrote_is_in_order(board, directory, rules) -> None:
    assert check(board, rules) == []
    assert check(directory, rules) == []
    assert check(directory / "results" / "seed1.json", rules) == []


def test_a_run_directory_can_be_checked(make_run, rules) -> None:
    assert check(make_run(0), rules) == []


def test_a_changed_digit_is_found_and_its_file_named(directory, rules) -> None:
    change(directory / "results" / "seed1.json", '"value": 1.2\n', '"value": 1.0\n')
    text = found(directory, rules)
    assert "results/seed1.json: its contents changed" in text
    assert "figures.metrics does not follow" in text


@pytest.mark.parametrize("name", ["submission.json", "config.yaml", "samples.png", "results/seed2.json"])
def test_any_flipped_byte_is_found(directory, rules, name: str) -> None:
    path = directory / name
    contents = bytearray(path.read_bytes())
    contents[len(contents) // 2] ^= 1
    path.write_bytes(contents)
    assert f"{name}: its contents changed" in found(directory, rules)


FORGERIES = [
    ("results/seed1.json", '"value": 1.2\n', '"value": 1.0\n', "figures.metrics does not follow"),
    ("results/seed1.json", '"label_dropout": 0.1', '"label_dropout": 0.2', "config_hash is"),
    ("results/seed1.json", '"parameters": 951233', '"parameters": 7', "differ in model"),
    ("results/seed1.json", '"batch_size": 128,', '"batch_size": 64,', "trainer.batch_size"),
    ("results/seed1.json", '"dirty": false', '"dirty": true', "not for the closed division"),
    ("results/seed1.json", '"seed": 1,\n    "steps"', '"seed": 7,\n    "steps"', "seed 7, listed as seed 1"),
    ("submission.json", '"mean": 1.2', '"mean": 1.1', "figures.metrics"),
    ("submission.json", '"nfe": 50.0', '"nfe": 10.0', "figures.nfe"),
    ("submission.json", '"budget_class": "S"', '"budget_class": "L"', "figures.budget_class"),
    ("submission.json", '"outside_data": null', '"outside_data": "ImageNet"', "outside data were used"),
    ("submission.json", '"submitter": "ada"', '"submitter": "eve"', "belongs in digits/"),
    ("submission.json", '"group_hash": "', '"group_hash": "0', "group_hash"),
    ("submission.json", '"date": "2', '"date": "9999-99-9', "date"),
    ("submission.json", '"schema_version": 1', '"schema_version": 2', "schema_version"),
    ("submission.json", "results/seed1.json", "results/seed7.json", "results/seed7.json"),
    ("config.yaml", "label_dropout: 0.1", "label_dropout: 0.2", "config.yaml: not the configuration"),
    ("config.yaml", "seeds:", "seeds: &x", "config.yaml: not the configuration"),
    ("SHA256SUMS", "  samples.png", "  ../samples.png", "lists ../samples.png"),
    ("SHA256SUMS", "  samples.png", " *samples.png", "not a sum and a new path"),
]


@pytest.mark.parametrize(("name", "old", "new", "said"), FORGERIES)
def test_forgeries_are_found_though_all_sums_agree(directory, rules, name, old, new, said: str) -> None:
    if name != "submission.json" and name.endswith(".json"):
        change(directory / name, old, new)
        reseal(directory)
    else:
        change(directory / name, old, new)
        if name != "SHA256SUMS" and "results/seed7" not in new:
            reseal(directory)
    text = found(directory, rules)
    assert said in text
    assert "changed" not in text or "seed7" in new or name == "SHA256SUMS"


def test_a_result_must_be_the_one_that_was_submitted(directory, rules) -> None:
    listed = (directory / "submission.json").read_bytes()
    change(directory / "results" / "seed1.json", '"wall_seconds": 120.5', '"wall_seconds": 1.5')
    reseal(directory)
    (directory / "submission.json").write_bytes(listed)
    assert "seed1.json: its contents are not those that submission.json lists" in found(directory, rules)


def test_the_group_hash_must_be_the_results(directory, rules) -> None:
    path = directory / "submission.json"
    group = json.loads(path.read_text())["group_hash"]
    change(path, group, group[:-1] + ("0" if group[-1] != "0" else "1"))
    reseal(directory)
    assert "the results' another" in found(directory, rules)


def test_a_path_listed_twice_is_found(directory, rules) -> None:
    path = directory / "SHA256SUMS"
    path.write_text(f"{'0' * 64}  config.yaml\n{path.read_text()}")
    assert "SHA256SUMS: line 2 is not a sum and a new path" in found(directory, rules)


def test_submissions_are_checked_in_order(tmp_path) -> None:
    for name in "zyxwvutsrqponmlkjihgfedcba":
        (tmp_path / "submissions" / name / name).mkdir(parents=True)
    assert "".join(path.name for path in submission_directories(tmp_path)) == "abcdefghijklmnopqrstuvwxyz"


def test_all_problems_are_shown_not_only_the_first(directory, rules) -> None:
    change(directory / "results" / "seed0.json", '"value": 1.1\n', '"value": 1.0\n')
    change(directory / "results" / "seed2.json", '"value": 1.3\n', '"value": 1.0\n')
    (directory / "samples.png").write_bytes(b"GIF89a")
    text = found(directory, rules)
    for named in ("seed0.json", "seed2.json", "not a PNG"):
        assert named in text


def test_missing_surplus_and_linked_files_are_found(directory, rules, tmp_path) -> None:
    (directory / "model.pt").write_bytes(b"weights")
    (directory / "results" / "seed01.json").write_text("{}")
    secret = tmp_path / "secret.png"
    secret.write_bytes(b"\x89PNG\r\n\x1a\n")
    (directory / "samples.png").unlink()
    (directory / "samples.png").symlink_to(secret)
    text = found(directory, rules)
    assert "model.pt: does not belong" in text
    assert "seed01.json: does not belong" in text
    assert "samples.png: found a symbolic link" in text


def test_a_linked_results_directory_is_not_followed(directory, rules, tmp_path) -> None:
    (directory / "results").rename(tmp_path / "elsewhere")
    (directory / "results").symlink_to(tmp_path / "elsewhere")
    text = found(directory, rules)
    assert "results: expected a directory" in text
    assert "which is not there" in text


def test_a_linked_submission_is_not_followed(board, directory, rules, tmp_path) -> None:
    directory.rename(tmp_path / directory.name)
    directory.symlink_to(tmp_path / directory.name)
    assert "symbolic link" in found(board, rules)


def test_oversized_files_are_found(directory, rules) -> None:
    with (directory / "samples.png").open("ab") as file:
        file.truncate((8 << 20) + 1)
    assert "samples.png: larger than" in found(directory, rules)


def test_a_directory_that_is_no_submission_is_a_failure(board, rules) -> None:
    (board / "submissions" / "digits" / "empty").mkdir()
    text = found(board, rules)
    assert "submission.json is missing" in text
    assert "empty" in text


def test_a_stale_page_and_schema_are_found(board, rules) -> None:
    with (board / "README.md").open("a") as file:
        file.write(" ")
    (board / "result.schema.json").unlink()
    (board / "submission.schema.json").write_text("{}")
    text = found(board, rules)
    assert "README.md: out of date. Type: python -m genbench.leaderboard build" in text
    assert "result.schema.json: out of date" in text
    assert "submission.schema.json: out of date" in text


def test_the_same_results_cannot_be_two_submissions(board, rules, make_runs) -> None:
    submit(make_runs(name="again"), name="eve", to=board, rules=rules, say=lambda line: None)
    assert "the same result as one of" in found(board, rules)


def test_one_run_cannot_be_two_recipes(board, rules, make_runs) -> None:
    """Records whose configurations and hashes were edited, and whose scores were not."""
    relabelled = {"config.model.label_dropout": 0.2, "command": ["model.label_dropout=0.2"]}
    submit(make_runs(changes=relabelled, name="x"), name="eve", to=board, rules=rules, say=lambda line: None)
    text = found(board, rules)
    assert text.count("another configuration, but to the last bit the metrics of") == 3
    assert "the same result as one of" not in text


def test_runs_without_metrics_are_not_taken_for_one_run(board, rules, make_run) -> None:
    for seed in (0, 1):
        changes = {"metrics": [], "config.model.label_dropout": 0.3 + seed}
        run = make_run(seed, changes, f"unscored{seed}")
        submit([run], name=f"x{seed}", to=board, rules=rules, division="open", say=lambda line: None)
    assert "to the last bit" not in found(board, rules)


def test_misnamed_metrics_are_found(make_run, rules) -> None:
    few = {"metrics.0.n_samples": 500, "metrics.1.n_samples": 500}
    text = found(make_run(0, few), rules)
    assert "fd_digits from 500 samples must be named fd_digits@500" in text
    named = make_run(1, {"metrics.0.name": "fd_digits@2000"})
    assert "fd_digits@2000 from 2000 samples must be named fd_digits" in found(named, rules)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"config.metrics.n_samples": 100}, "metrics.n_samples is 2000, in its configuration 100"),
        ({"config.model.name": "edm"}, "model.name is 'ddpm', in its configuration 'edm'"),
        ({"training.steps": 4001}, "trained 4001 steps, its configuration allows 4000"),
    ],
)
def test_a_record_must_agree_with_its_configuration(make_run, rules, changes, said: str) -> None:
    assert said in found(make_run(0, changes), rules)


def test_nothing_is_executed(directory, rules, tmp_path) -> None:
    mark = tmp_path / "executed"
    (directory / "config.yaml").write_text(f"a: !!python/object/apply:os.mkdir ['{mark}']\n")
    reseal(directory)
    assert "config.yaml: not the configuration" in found(directory, rules)
    assert not mark.exists()


def test_names_cannot_drive_the_terminal(directory, rules) -> None:
    (directory / "\x1b[2Jall is well").write_text("")
    problem = next(p for p in check(directory, rules) if "does not belong" in p.message)
    assert str(problem).isprintable()
    assert "\\x1b[2Jall is well" in str(problem)
    assert str(Problem(Path("a"), "b\nc")) == "a: b\\x0ac"


def test_a_path_with_nothing_to_check_fails(tmp_path) -> None:
    for path in (tmp_path, tmp_path / "absent"):
        assert "expected a result.json, a run" in str(check_with_shipped_rules(path)[0])


def test_the_committed_leaderboard_is_in_order() -> None:
    root = Path(__file__).parents[2] / "leaderboard"
    assert [str(problem) for problem in check_with_shipped_rules(root)] == []


def test_torch_is_not_imported_to_derive_distances() -> None:
    """It takes half a gigabyte and two seconds, in each of the processes that check a large board."""
    root = Path(__file__).parents[2] / "leaderboard"
    code = (
        f"import sys; from genbench.leaderboard import check; assert check({str(root)!r}) == []; "
        "sys.exit('torch' in sys.modules or 'numpy' not in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_processes_find_what_one_finds(tmp_path, monkeypatch) -> None:
    """Of boards large enough: the same verdicts in the same order, of sound and broken submissions."""
    root = fill(tmp_path / "board", 6, images=False)
    broken = submission_directories(root)[2]
    (broken / "submission.json").write_text("{}")
    (submission_directories(root)[4] / "samples.png").write_bytes(b"no picture")
    alone = list(examine(root))
    monkeypatch.setattr(checking, "MANY", 2)
    assert list(examine(root)) == alone
    assert sum(bool(verdict.problems) for verdict in alone) >= 2
