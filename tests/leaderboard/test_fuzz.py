"""Thousands of made-up inputs: whatever a stranger sends is read whole or refused in one line, and no more.

`make fuzz` tries a hundred times as many; GENBENCH_FUZZ says how many times.
"""

from __future__ import annotations

import contextlib
import copy
import json
import os
import shutil
from pathlib import Path
from typing import Any

import hostile
import pytest
from fakes import COMMITTED, fill, review
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from genbench.data.arrays import load_images
from genbench.errors import UserError
from genbench.leaderboard.checking import check
from genbench.leaderboard.evidence import departures, from_bytes
from genbench.leaderboard.page import pages
from genbench.leaderboard.record import Result, parse, to_bytes
from genbench.leaderboard.reviewing import record
from genbench.leaderboard.rules import shipped_rules
from genbench.leaderboard.standings import read_rows
from genbench.leaderboard.submission import Submission, read_entry
from genbench.leaderboard.untrusted import read_json, read_yaml

TIMES = int(os.environ.get("GENBENCH_FUZZ", "1"))


def fuzz(examples: int) -> Any:
    """So many examples; the same ones every time unless there are more of them than usual."""
    return settings(
        max_examples=examples * TIMES,
        deadline=None,
        database=None,
        derandomize=TIMES == 1,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )


def refused(error: UserError, path: Path) -> None:
    """Asserts that a refusal is one line that names its file and can drive no terminal."""
    message = str(error)
    assert message.startswith(str(path))
    assert message.isprintable()
    assert len(message) < 2500


@pytest.fixture(scope="module")
def board(tmp_path_factory) -> Path:
    root = fill(tmp_path_factory.mktemp("fuzz") / "board", 2, images=False)
    for directory in root.glob("submissions/*/*"):
        entry, text = read_entry(directory), (directory / "submission.json").read_bytes()
        record(directory, review(entry.results, text, "a reviewer"), shipped_rules())
    return root


@pytest.fixture(scope="module")
def scratch(tmp_path_factory) -> Path:
    """A file to be written again and again, beside nothing else."""
    return tmp_path_factory.mktemp("scratch") / "file.json"


RESULT = json.loads(next(COMMITTED.glob("*/results/seed0.json")).read_text())
RESULT_PLACES = list(hostile.places(RESULT))


@fuzz(1500)
@given(contents=hostile.mutated_json(RESULT, RESULT_PLACES))
def test_results(scratch: Path, contents: bytes) -> None:
    scratch.write_bytes(contents)
    try:
        result = Result.read(scratch)
    except UserError as error:
        refused(error, scratch)
    else:
        again = parse(Result, json.loads(to_bytes(result)), scratch)
        assert to_bytes(again) == to_bytes(result)
        assert again == result
        assert [str(problem).isprintable() for problem in check(scratch)].count(False) == 0
    assert [path.name for path in scratch.parent.iterdir()] == [scratch.name]


@fuzz(400)
@given(data=st.data())
def test_submissions(board: Path, scratch: Path, data: st.DataObject) -> None:
    value = json.loads(next(board.glob("submissions/*/*/submission.json")).read_text())
    scratch.write_bytes(data.draw(hostile.mutated_json(value, list(hostile.places(value)))))
    try:
        submission = parse(Submission, read_json(scratch), scratch)
    except UserError as error:
        refused(error, scratch)
    else:
        assert parse(Submission, json.loads(to_bytes(submission)), scratch) == submission


@fuzz(120)
@given(data=st.data())
def test_directories(board: Path, tmp_path_factory, data: st.DataObject) -> None:
    """One file of a submission is changed: `check` says what is wrong and never falls over, nor do pages."""
    root = tmp_path_factory.getbasetemp() / "changed"
    shutil.rmtree(root, ignore_errors=True)
    source = data.draw(st.sampled_from(sorted(board.glob("submissions/*/*"))))
    directory = root / source.relative_to(board)
    shutil.copytree(source, directory)
    files = sorted(path for path in directory.rglob("*") if path.is_file())
    path = data.draw(st.sampled_from(files))
    before = path.read_bytes()
    if path.suffix == ".json":
        tree = json.loads(before)
        contents = data.draw(hostile.mutated_json(tree, list(hostile.places(tree))))
    else:
        contents = data.draw(hostile.mutated_bytes(before))
    path.write_bytes(contents)
    problems = check(directory)
    assert (contents == before) == (not problems)
    assert all(str(problem).isprintable() and len(str(problem)) < 2500 for problem in problems)
    with contextlib.suppress(UserError):
        assert "hacked()>" not in "".join(pages(root, list(read_rows(root))).values())
    assert sorted(path for path in directory.rglob("*") if path.is_file()) == files


@fuzz(400)
@given(data=st.data())
def test_evidence(board: Path, data: st.DataObject) -> None:
    directory = next(path for path in board.glob("submissions/digits/*"))
    result = read_entry(directory).results[0]
    path = directory / "evidence" / "seed0.safetensors"
    good = path.read_bytes()
    # Small headers are where parsers go wrong; moments are changed too, but rarely hit.
    header = 8 + int.from_bytes(good[:8], "little")
    changed = data.draw(hostile.mutated_bytes(good[:header])) + good[header:]
    try:
        found = from_bytes(changed, path, result, shipped_rules())
    except UserError as error:
        refused(error, path)
    else:
        assert changed == good
        assert list(departures(found, result, shipped_rules())) == []


@fuzz(300)
@given(data=st.data())
def test_moments_that_mean_nothing(board: Path, data: st.DataObject) -> None:
    """Bytes of the moments are changed: a distance is derived from them, or they are refused."""
    directory = next(path for path in board.glob("submissions/digits/*"))
    result = copy.deepcopy(read_entry(directory).results[0])
    path = directory / "evidence" / "seed0.safetensors"
    contents = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        start = len(contents) - 8 * data.draw(st.integers(1, 8000))
        contents[start : start + 8] = data.draw(st.binary(min_size=8, max_size=8))
    try:
        found = from_bytes(bytes(contents), path, result, shipped_rules())
    except UserError as error:
        refused(error, path)
    else:
        assert all(line.isprintable() for line in departures(found, result, shipped_rules()))


GOOD_NPZ = hostile.zipped(("images.npy", hostile.npy((2, 8, 8, 1), bytes(range(128)))))
STORED_NPZ = hostile.zipped(("arr_0.npy", hostile.npy((2, 1, 8, 8), bytes(range(128)))), method=0)


@fuzz(700)
@given(data=st.data())
def test_arrays(scratch: Path, data: st.DataObject) -> None:
    path = scratch.with_suffix(".npz")
    contents = data.draw(st.sampled_from((GOOD_NPZ, STORED_NPZ)))
    for _ in range(data.draw(st.integers(1, 3))):
        contents = data.draw(hostile.mutated_bytes(contents))
    path.write_bytes(contents)
    try:
        images = load_images(path, 1, 8, path.parent).images
    except UserError as error:
        refused(error, path)
    else:
        assert images.shape[1:] == (1, 8, 8)
    finally:
        path.unlink()


YAML = b"a: 1\nb: [1, two, 3.0]\nc: {d: null, e: 'x'}\nf: &x y\n"


@fuzz(400)
@given(contents=hostile.mutated_bytes(YAML) | st.binary(max_size=60) | st.text(max_size=60).map(str.encode))
def test_yaml(scratch: Path, contents: bytes) -> None:
    path = scratch.with_suffix(".yaml")
    path.write_bytes(contents)
    try:
        assert isinstance(repr(read_yaml(path)), str)
    except UserError as error:
        refused(error, path)
    finally:
        path.unlink()
