"""Is what lies in the leaderboard what it says it is? Everything that can be derived is derived again.

Of a record and a submission: see `genbench.leaderboard.problems`. Of a whole leaderboard: each submission,
that no two are the same, and that the generated pages are byte for byte those that would be generated now.
Every failure is reported, none raised.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path

from genbench.errors import UserError
from genbench.leaderboard.divisions import values
from genbench.leaderboard.inventory import Problem
from genbench.leaderboard.page import PAGE, pages, schemas
from genbench.leaderboard.problems import result_problems, submission_problems
from genbench.leaderboard.record import Result
from genbench.leaderboard.rules import Rules, shipped_rules
from genbench.leaderboard.standings import Row, row
from genbench.leaderboard.submission import SUBMISSION, Entry, Figures, submission_directories
from genbench.leaderboard.untrusted import read_bytes, sha256

MOST_PROBLEMS = 50
"""Problems of one thing that are listed; a file of sums can be made to have ten thousand."""

MANY = 500
"""Submissions of a board that several processes examine; they take a second to start."""

MOST_PROCESSES = 8
"""They take about 60 MB each."""


@dataclass(frozen=True)
class Verdict:
    """What became of one checked thing: all its problems, none where it is in order."""

    path: Path
    problems: tuple[Problem, ...]


def check(path: Path | str = "leaderboard", rules: Rules | None = None) -> list[Problem]:
    """All problems of a result file, a submission's directory, a run's directory, or a whole leaderboard."""
    return [problem for verdict in examine(path, rules) for problem in verdict.problems]


def examine(path: Path | str, rules: Rules | None = None) -> Iterator[Verdict]:
    """As `check`, one verdict for each thing checked, as soon as it is."""
    path = Path(path)
    rules = shipped_rules() if rules is None else rules
    if path.is_file():
        yield _verdict(path, lambda: result_problems(path, Result.read(path), rules))
    elif (path / SUBMISSION).exists():
        yield _verdict(path, lambda: submission_problems(path, rules))
    elif (path / "result.json").exists():
        file = path / "result.json"
        yield _verdict(file, lambda: result_problems(file, Result.read(file), rules))
    elif (path / "submissions").is_dir() or (path / PAGE).exists():
        yield from _examine_board(path, rules)
    else:
        expected = "a result.json, a run, a submission or a leaderboard"
        yield Verdict(path, (Problem(path, f"expected {expected}, found none of these here"),))


def _examine_board(root: Path, rules: Rules) -> Iterator[Verdict]:
    """A whole leaderboard; each submission is read once, for its own verdict and for the pages."""
    rows: list[Row] = []
    owner: dict[str, Path] = {}  # of each result
    scored: dict[str, tuple[str, Path]] = {}  # configuration and place of each set of metrics
    directories = submission_directories(root)

    def problems(examined: _Examined) -> Iterator[Problem]:
        yield from examined.problems
        if examined.refusal is not None:
            raise UserError(examined.refusal)
        if examined.row is None:
            return
        for item in examined.scores:
            first = owner.setdefault(item.result, item.path.parent.parent)
            if first != item.path.parent.parent:
                yield Problem(item.path, f"the same result as one of {first}")
        for item in examined.scores:
            config, path = scored.setdefault(item.metrics, (item.config_hash, item.path))
            # Of one configuration they are those of one run, or of an exact reproduction.
            if item.metrics != UNSCORED and config != item.config_hash:
                yield Problem(item.path, f"another configuration, but to the last bit the metrics of {path}")
        rows.append(examined.row)

    for directory, examined in zip(directories, _all_examined(directories, root, rules), strict=True):
        yield _verdict(directory, partial(problems, examined))
    if len(rows) < len(directories):
        unread = len(directories) - len(rows)
        message = f"cannot be regenerated: {unread} of {len(directories)} submissions cannot be read"
        yield Verdict(root / PAGE, (Problem(root / PAGE, message),))
    else:
        for name, text in pages(root, rows).items():
            yield _verdict(root / name, partial(_page_problems, root / name, text))
    for name, text in schemas().items():
        yield _verdict(root / name, partial(_page_problems, root / name, text))


@dataclass(frozen=True)
class _Scores:
    """A result as far as it is compared with those of other submissions: SHA-256 of its file and metrics."""

    path: Path
    result: str
    metrics: str
    config_hash: str


@dataclass(frozen=True)
class _Examined:
    """A submission looked at by itself: its problems, what was read of it, and why no more could be.

    It travels between processes, so it holds no more of the submission than its row.
    """

    problems: tuple[Problem, ...]
    row: Row | None = None
    scores: tuple[_Scores, ...] = ()
    refusal: str | None = None


def _all_examined(directories: Sequence[Path], root: Path, rules: Rules) -> Iterator[_Examined]:
    """Every submission, in order; of a large board by several processes."""
    work = partial(_examined, root=root, rules=rules)
    if len(directories) < MANY:
        yield from map(work, directories)
        return
    # Spawned and not forked, and each on one thread: where torch has run already, neither would end well.
    processes = min(os.cpu_count() or 1, MOST_PROCESSES)
    with ProcessPoolExecutor(processes, get_context("spawn"), _alone) as pool:
        yield from pool.map(work, directories, chunksize=16)


def _alone() -> None:
    os.environ["OMP_NUM_THREADS"] = "1"


def _examined(directory: Path, root: Path, rules: Rules) -> _Examined:
    found: list[Problem] = []
    problems = submission_problems(directory, rules)
    try:
        while len(found) <= MOST_PROBLEMS:
            found.append(next(problems))
    except StopIteration as end:
        return _Examined(tuple(found)) if end.value is None else _read(found, end.value, root)
    except UserError as error:
        return _Examined(tuple(found), refusal=str(error))
    return _Examined(tuple(found))


def _read(found: Sequence[Problem], read: tuple[Entry, Figures | None], root: Path) -> _Examined:
    entry, derived = read
    scores = [
        _Scores(entry.directory / item.file, item.sha256, _digest(values(result)), result.config_hash)
        for item, result in zip(entry.submission.results, entry.results, strict=True)
    ]
    return _Examined(tuple(found), row(entry, root, derived), tuple(scores))


def _digest(metrics: Sequence[tuple[str, float]]) -> str:
    return sha256(repr(metrics).encode())


UNSCORED = _digest([])
"""What is said of a result without metrics."""


def _verdict(path: Path, problems: Callable[[], Iterator[Problem]]) -> Verdict:
    """All problems an examination finds; what it cannot read ends it and is one more."""
    found: list[Problem] = []
    try:
        for problem in problems():
            if len(found) == MOST_PROBLEMS:
                found.append(Problem(path, f"more than {MOST_PROBLEMS} problems; the rest are not shown"))
                break
            found.append(problem)  # one by one, so that a refusal keeps what was found before it
    except UserError as error:
        message = str(error).removeprefix(f"{path}: ")
        found.append(Problem(path, " ".join(message.split())))
    return Verdict(path, tuple(found))


def _page_problems(path: Path, text: str) -> Iterator[Problem]:
    expected = text.encode()
    try:
        found = read_bytes(path, len(expected))
    except UserError:  # missing, longer, or no file at all
        found = b""
    if found != expected:
        where = "" if path.parent == Path("leaderboard") else f" --to {path.parent}"
        yield Problem(path, f"out of date. Type: python -m genbench.leaderboard build{where}")
