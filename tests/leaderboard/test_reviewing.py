"""Reviews: what is no reason for a mark, what becomes of one, and how it is written."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fakes import fill, grey, review

from genbench.errors import UserError
from genbench.leaderboard.__main__ import main
from genbench.leaderboard.checking import check
from genbench.leaderboard.page import PAGE, pages
from genbench.leaderboard.record import Git, to_bytes
from genbench.leaderboard.reviewing import record, reviewer_objections
from genbench.leaderboard.rules import shipped_rules
from genbench.leaderboard.standings import read_rows
from genbench.leaderboard.submission import read_entry
from genbench.leaderboard.submitting import sums
from genbench.leaderboard.untrusted import sha256
from genbench.leaderboard.verified import MARKS, MOST_REVIEWS, Review

RULES = shipped_rules()


@pytest.fixture
def directory(tmp_path) -> Path:
    """A submission of three training seeds by Ada Lovelace, whom nobody has reviewed."""
    (found,) = fill(tmp_path / "board", 1, images=False).glob("submissions/*/*")
    return found


def honest(directory: Path, by: str = "Emmy", seeds: int = 3) -> Review:
    return review(read_entry(directory).results[:seeds], (directory / "submission.json").read_bytes(), by)


def put(directory: Path, value: Any) -> None:
    """Writes verified.json, whatever it is, and makes all sums agree."""
    text = value if isinstance(value, str) else json.dumps(value)
    (directory / "verified.json").write_text(text)
    files = {p.relative_to(directory).as_posix(): p for p in directory.rglob("*") if p.is_file()}
    files.pop("SHA256SUMS")
    (directory / "SHA256SUMS").write_text(sums({name: p.read_bytes() for name, p in files.items()}))


def text_of(board: Path) -> str:
    return pages(board, read_rows(board))[PAGE]


@pytest.mark.parametrize(
    ("seeds", "scores", "word"), [(3, True, "reproduced"), (3, False, "redrawn"), (2, True, "redrawn")]
)
def test_what_was_recorded_is_in_order_and_shown(directory, seeds: int, scores: bool, word: str) -> None:
    said = honest(directory, seeds=seeds)
    if not scores:
        said = said.model_copy(update={"seeds": [f.model_copy(update={"scores": []}) for f in said.seeds]})
    assert record(directory, said, RULES) == directory / "verified.json"
    assert check(directory) == []
    assert read_entry(directory).verified.reviews == [said]
    board = directory.parents[2]
    (row,) = read_rows(board)
    ((found, told),) = row.marks
    assert found == word
    assert told.startswith("by Emmy, 2026-10-11; ")
    assert f"| {MARKS[word]} {word} |" in text_of(board)


def test_nobody_has_a_mark_without_a_review(directory) -> None:
    assert "✓" not in text_of(directory.parents[2])


def test_a_second_review_stands_beside_the_first_and_a_new_one_of_a_person_replaces_the_old(
    directory,
) -> None:
    record(directory, honest(directory, "Emmy", 1), RULES)
    record(directory, honest(directory, "Sofya"), RULES)
    record(directory, honest(directory, " emmy", 2), RULES)
    reviews = read_entry(directory).verified.reviews
    assert [(each.by, len(each.seeds)) for each in reviews] == [("Sofya", 3), (" emmy", 2)]
    (row,) = read_rows(directory.parents[2])
    assert [word for word, _ in row.marks] == ["reproduced", "redrawn"]
    assert check(directory) == []


def edited(value: dict[str, Any], key: str, new: Any) -> None:
    *path, last = (int(part) if part.isdecimal() else part for part in key.split("."))
    for part in path:
        value = value[part]
    value[last] = new(value[last]) if isinstance(new, Callable) else new  # type: ignore[arg-type]


FORGERIES = [
    ("by", " ada  LOVELACE", "is its own submitter"),
    ("submission", "0" * 64, "of another submission.json"),
    ("git", {"commit": "ab" * 20, "dirty": True}, "uncommitted changes"),
    ("git", {"commit": None, "dirty": None}, "uncommitted changes"),
    ("seeds.1.seed", 0, "training seeds must be distinct"),
    ("seeds.1.seed", 7, "of training seed 7, which was not submitted"),
    ("seeds.2.sha256", "0" * 64, "training seed 2: compared were 64 images, not the 64 of"),
    ("seeds.0.images", 63, "compared were 63 images"),
    ("seeds.0.identical", 65, "near and 65 identical cannot be"),
    ("seeds.0.near", 65, "of 64 images 65 near"),
    ("seeds.0.scores", lambda scores: scores[:1], "its scores are not the record's"),
    ("seeds.0.scores.0.recorded", lambda value: value * 1.001, "is not what the record says"),
    ("seeds.0.scores.0.allowed", 1e9, "or its bound another"),
    ("seeds.0.scores.0.allowed", None, "or its bound another"),
    ("seeds.0.scores.0.found", lambda value: value * 1.5, "images or scores are not those"),
]


@pytest.mark.parametrize(("key", "new", "said"), FORGERIES)
def test_a_review_that_is_no_reason_for_a_mark_is_found_and_never_recorded(
    directory, key: str, new: Any, said: str
) -> None:
    value = json.loads(to_bytes(honest(directory)))
    edited(value, key, new)
    before = {path: path.read_bytes() for path in directory.rglob("*") if path.is_file()}
    with pytest.raises(UserError, match="nothing was recorded") as caught:
        record(directory, Review.model_validate(value), RULES)
    assert said in str(caught.value)
    assert {path: path.read_bytes() for path in directory.rglob("*") if path.is_file()} == before
    put(directory, {"schema_version": 1, "reviews": [value]})
    problems = [str(problem) for problem in check(directory)]
    assert any(said in line and "verified.json: the review by" in line for line in problems)


def test_images_that_are_far_apart_are_no_reason(directory) -> None:
    value = json.loads(to_bytes(honest(directory)))
    value["seeds"][0] |= {"identical": 0, "near": 60, "equal": 0.98, "largest": 200}  # 61 would do
    put(directory, {"schema_version": 1, "reviews": [value]})
    assert "images or scores are not those that were submitted" in str(check(directory)[0])
    value["seeds"][0] |= {"near": 61}
    put(directory, {"schema_version": 1, "reviews": [value]})
    assert check(directory) == []


@pytest.mark.parametrize(
    "value",
    [
        "[]",
        "{}",
        '{"schema_version": 1, "reviews": []}',
        '{"schema_version": 1, "schema_version": 1}',
        "{" * 100_000,
        "\x00",
        ("by", "<script>"),
        ("by", "a\x1b[2Jb"),
        ("by", ""),
        ("date", "2026-02-30"),
        ("date", 20260230),
        ("note", "a\nb"),
        ("seeds", []),
        ("seeds.0.largest", 256),
        ("seeds.0.equal", 1.5),
        ("seeds.0.images", True),
        ("seeds.0.scores.0.found", 1e300),
        ("seeds.0.scores.0.name", "<b>"),
        ("extra", 1),
    ],
    ids=lambda value: str(value)[:30],
)
def test_hostile_reviews_are_one_clear_line(directory, value) -> None:
    if isinstance(value, tuple):
        key, new = value
        said = json.loads(to_bytes(honest(directory)))
        edited(said, key, new)
        value = {"schema_version": 1, "reviews": [said]}
    put(directory, value)
    (problem,) = check(directory)
    assert problem.path in (directory, directory / "verified.json")
    assert "verified.json" in str(problem)
    assert str(problem).isprintable()
    assert len(str(problem)) < 1500
    with pytest.raises(UserError):
        read_entry(directory)


def test_a_linked_review_is_not_followed(directory, tmp_path) -> None:
    record(directory, honest(directory), RULES)
    (directory / "verified.json").rename(tmp_path / "elsewhere.json")
    (directory / "verified.json").symlink_to(tmp_path / "elsewhere.json")
    assert any("found a symbolic link" in str(problem) for problem in check(directory))
    with pytest.raises(UserError, match="symbolic link"):
        list(read_rows(directory.parents[2]))


def test_a_submission_changed_since_loses_its_review(directory) -> None:
    record(directory, honest(directory), RULES)
    path = directory / "submission.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"note": "another"}))
    put(directory, (directory / "verified.json").read_text())
    (problem,) = check(directory)
    assert "of another submission.json; it was changed since" in problem.message


def test_the_sum_of_images_is_that_of_their_bytes(directory) -> None:
    """So that whoever has the images can compute it."""
    result = read_entry(directory).results[0]
    assert honest(directory).seeds[0].sha256 == sha256(grey(result).tobytes())


CLEAN = Git(commit="1" * 40, dirty=False)


@pytest.mark.parametrize(
    ("by", "note", "seeds", "why"),
    [
        ("", None, [0], "its name cannot stand on a page"),
        ("<me>", None, [0], "its name cannot stand on a page"),
        ("E" * 500, None, [0], "its name cannot stand on a page"),
        ("Emmy", "two\nlines", [0], "its note cannot stand on a page"),
        ("Emmy", None, [0, 1, 0], "training seeds must be distinct"),
        (" ada  LOVELACE", None, [0], "its own submitter"),
    ],
)
def test_what_would_not_be_recorded_is_said_before_anything_is_drawn(directory, by, note, seeds, why) -> None:
    entry = read_entry(directory)
    assert any(why in line for line in reviewer_objections(by, note, seeds, CLEAN, entry))
    assert not list(reviewer_objections("Emmy", "hers", [0, 1], CLEAN, entry))


def test_no_more_reviews_than_are_kept(directory) -> None:
    for number in range(MOST_REVIEWS):
        record(directory, honest(directory, f"Emmy {number}"), RULES)
    entry = read_entry(directory)
    (line,) = reviewer_objections("One more", None, [0], CLEAN, entry)
    assert "20 reviews already" in line
    assert not list(reviewer_objections("emmy 7", None, [0], CLEAN, entry))  # in place of an earlier one


def test_a_note_without_a_name_is_refused(directory, capsys) -> None:
    assert main(["verify", str(directory), "run", "--note", "mine"]) == 1
    assert "type --by NAME too" in capsys.readouterr().err
