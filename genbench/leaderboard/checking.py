"""Is what lies in the leaderboard what it says it is? Everything that can be derived is derived again.

Of a submission: which files there are, their sums, the records' schema, each configuration's hash, that the
results are training seeds of one recipe measured alike, that names, counts and figures follow from them,
distances from moments, reference statistics from the data set, and the rules of its division. Of a whole
leaderboard: each submission, that no two are the same, and that the generated pages are byte for byte those
that would be generated now. Every failure is reported, none raised.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from genbench.configuration import SHOWN, hashes
from genbench.errors import UserError
from genbench.leaderboard.divisions import closed_objections, values
from genbench.leaderboard.inventory import Problem, contents, sums_problems
from genbench.leaderboard.page import PAGE, pages, schemas
from genbench.leaderboard.plausibility import contradictions
from genbench.leaderboard.record import Result
from genbench.leaderboard.rules import Rules, disagreements, misnamed, misreferred, shipped_rules
from genbench.leaderboard.standings import Row, row
from genbench.leaderboard.submission import (
    CONFIG,
    RESULTS,
    SAMPLES,
    SUBMISSION,
    Entry,
    Figures,
    evidence_file,
    figures,
    plain,
    read_entry,
    slug,
    submission_directories,
)
from genbench.leaderboard.submitting import PNG, config_text
from genbench.leaderboard.untrusted import read_bytes, sha256

MOST_PROBLEMS = 50
"""Problems of one thing that are listed; a file of sums can be made to have ten thousand."""


MANY = 500
"""Submissions of a board that several processes examine; they take seconds to start."""


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
        yield _verdict(path, lambda: _result_problems(path, Result.read(path), rules))
    elif (path / SUBMISSION).exists():
        yield _verdict(path, lambda: _submission_problems(path, rules))
    elif (path / "result.json").exists():
        file = path / "result.json"
        yield _verdict(file, lambda: _result_problems(file, Result.read(file), rules))
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

    def submission_problems(examined: _Examined) -> Iterator[Problem]:
        yield from examined.problems
        if examined.refusal is not None:
            raise UserError(examined.refusal)
        if examined.read is None:
            return
        entry, derived = examined.read
        for item in entry.submission.results:
            first = owner.setdefault(item.sha256, entry.directory)
            if first != entry.directory:
                yield Problem(entry.directory / item.file, f"the same result as one of {first}")
        for item, result in zip(entry.submission.results, entry.results, strict=True):
            path = entry.directory / item.file
            metrics = sha256(repr(values(result)).encode())
            config, first = scored.setdefault(metrics, (result.config_hash, path))
            # Of one configuration they are those of one run, or of an exact reproduction.
            if result.metrics and config != result.config_hash:
                yield Problem(path, f"another configuration, but to the last bit the metrics of {first}")
        rows.append(row(entry, root, derived))

    for directory, examined in zip(directories, _all_examined(directories, rules), strict=True):
        yield _verdict(directory, partial(submission_problems, examined))
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
class _Examined:
    """A submission looked at by itself: its problems, what was read of it, and why no more could be."""

    problems: tuple[Problem, ...]
    read: tuple[Entry, Figures | None] | None = None
    refusal: str | None = None


def _all_examined(directories: Sequence[Path], rules: Rules) -> Iterator[_Examined]:
    """Every submission, in order; of a large board by as many processes as there are processors."""
    work = partial(_examined, rules=rules)
    if len(directories) < MANY:
        yield from map(work, directories)
        return
    # Spawned and not forked, and each on one thread: where torch has run already, neither would end well.
    with ProcessPoolExecutor(mp_context=get_context("spawn"), initializer=_alone) as pool:
        yield from pool.map(work, directories, chunksize=16)


def _alone() -> None:
    os.environ["OMP_NUM_THREADS"] = "1"


def _examined(directory: Path, rules: Rules) -> _Examined:
    found: list[Problem] = []
    problems = _submission_problems(directory, rules)
    try:
        while len(found) <= MOST_PROBLEMS:
            found.append(next(problems))
    except StopIteration as end:
        return _Examined(tuple(found), end.value)
    except UserError as error:
        return _Examined(tuple(found), refusal=str(error))
    return _Examined(tuple(found))


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


def _result_problems(path: Path, result: Result, rules: Rules) -> Iterator[Problem]:
    whole, group = hashes(result.config)
    for what, found, derived in (
        ("config_hash", result.config_hash, whole),
        ("group_hash", result.group_hash, group),
    ):
        if found != derived:
            yield Problem(path, f"{what} is {found[:SHOWN]}, its configuration's is {derived[:SHOWN]}")
    for key, stated in (
        ("seed", result.training.seed),
        ("model.name", result.model.name),
        ("dataset.name", result.dataset.name),
        ("dataset.resolution", result.dataset.resolution),
        ("dataset.channels", result.dataset.channels),
        ("sampler.name", result.sampling.sampler),
        ("sampler.steps", result.sampling.steps),
        ("conditional", result.sampling.conditional),
        ("metrics.n_samples", result.sampling.n_samples),
        ("metrics.seeds", result.sampling.seeds),
        ("trainer.batch_size", result.training.batch_size),
        ("trainer.precision", result.training.precision),
    ):
        configured = _configured(result.config, key)
        if configured is not None and configured != stated:
            yield Problem(path, f"{key} is {stated!r:.100}, in its configuration {configured!r:.100}")
    steps = _configured(result.config, "trainer.steps")
    if isinstance(steps, int) and result.training.steps > steps:
        yield Problem(path, f"trained {result.training.steps} steps, its configuration allows {steps}")
    for line in (*misnamed(result, rules), *misreferred(result, rules), *contradictions(result)):
        yield Problem(path, line)


def _configured(config: Any, key: str) -> Any:
    """The value at a dotted key, None where there is none."""
    for part in key.split("."):
        config = config.get(part) if isinstance(config, dict) else None
    return config


def _submission_problems(
    directory: Path, rules: Rules
) -> Generator[Problem, None, tuple[Entry, Figures | None] | None]:
    """Yields a submission's problems; returns it with its figures, as far as it could be read."""
    if directory.is_symlink() or directory.absolute().parent.is_symlink():
        yield Problem(directory, "found a symbolic link, expected a directory")
        return None
    files = yield from contents(directory)
    yield from sums_problems(directory, files)
    for name in (SUBMISSION, CONFIG, SAMPLES):
        if name not in files:
            yield Problem(directory, f"{name} is missing")
    if SAMPLES in files and not files[SAMPLES].startswith(PNG):
        yield Problem(directory / SAMPLES, "not a PNG image")
    if SUBMISSION not in files:
        return None
    entry = read_entry(directory, files.keys())
    for item, result in zip(entry.submission.results, entry.results, strict=True):
        path = directory / item.file
        if sha256(files.get(item.file, b"")) != item.sha256:
            yield Problem(path, f"its contents are not those that {SUBMISSION} lists")
        if item.seed != result.training.seed or item.file != f"{RESULTS}/seed{item.seed}.json":
            yield Problem(path, f"of training seed {result.training.seed}, listed as seed {item.seed}")
        yield from _result_problems(path, result, rules)
    known = {path for item in entry.submission.results for path in (item.file, evidence_file(item.seed))}
    for name in sorted(files.keys() - known):
        if "/" in name:
            yield Problem(directory / name, f"of no result that {SUBMISSION} lists")
    yield from _evidence_problems(entry, files, rules)
    derived = yield from _figures_problems(entry, rules)
    if CONFIG in files and files[CONFIG] != config_text(entry.results[0]).encode():
        yield Problem(directory / CONFIG, "not the configuration of the results")
    return entry, derived


def _evidence_problems(entry: Entry, files: dict[str, bytes], rules: Rules) -> Iterator[Problem]:
    """Distances that do not follow from the submitted moments, and moments that are missing."""
    for result in entry.results:
        name = evidence_file(result.training.seed)
        path = entry.directory / name
        if name in files:
            # Here, for it imports torch, which boards without evidence do without.
            from genbench.leaderboard.evidence import departures, from_bytes

            try:
                found = from_bytes(files[name], path, result, rules)
            except UserError as error:
                yield Problem(path, str(error).removeprefix(f"{path}: "))
            else:
                for line in departures(found, result, rules):
                    yield Problem(path, line)
        elif entry.submission.division == "closed" and any(map(rules.card, result.metrics)):
            yield Problem(entry.directory, f"{name} is missing: the closed division wants moments")


def _figures_problems(entry: Entry, rules: Rules) -> Generator[Problem, None, Figures | None]:
    directory, submission, results = entry.directory, entry.submission, entry.results
    path = directory / SUBMISSION
    lines = disagreements(results)
    for line in lines:
        yield Problem(directory, line)
    if submission.group_hash != results[0].group_hash:
        yield Problem(path, f"group_hash is {submission.group_hash[:SHOWN]}, the results' another")
    if lines:
        return None  # figures of results that do not belong together mean nothing
    derived = figures(results)
    stated, expected = (f.model_dump() for f in (submission.figures, derived))
    for key in expected:
        if stated[key] != expected[key]:
            yield Problem(path, f"figures.{key} does not follow from the results")
    if submission.division == "closed":
        for line in closed_objections(results, submission.outside_data, rules):
            yield Problem(path, f"not for the closed division: {line}")
    place = f"{plain(derived.dataset)}/{slug(derived, submission.group_hash, submission.submitter)}"
    found = "/".join(directory.resolve().parts[-2:])
    if found != place:
        yield Problem(directory, f"lies in {found}, belongs in {place}")
    return derived


def _page_problems(path: Path, text: str) -> Iterator[Problem]:
    expected = text.encode()
    try:
        found = read_bytes(path, len(expected))
    except UserError:  # missing, longer, or no file at all
        found = b""
    if found != expected:
        where = "" if path.parent == Path("leaderboard") else f" --to {path.parent}"
        yield Problem(path, f"out of date. Type: python -m genbench.leaderboard build{where}")
