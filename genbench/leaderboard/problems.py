"""What is wrong with one record, or one submission: all of it, a line each, nothing raised but what ends it.

Of a submission: which files there are, their sums, the records' schema, each configuration's hash, that the
results are training seeds of one recipe measured alike, that names, counts and figures follow from them,
distances from moments, reference statistics from the data set, the rules of its division, and that reviews
are of what is there. Every file is read once: what is summed is what is parsed.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping
from pathlib import Path
from typing import Any

from genbench.configuration import SHOWN, hashes
from genbench.errors import UserError
from genbench.leaderboard.divisions import closed_objections
from genbench.leaderboard.inventory import Problem, contents, sums_problems
from genbench.leaderboard.plausibility import contradictions
from genbench.leaderboard.record import Result
from genbench.leaderboard.reviewing import objections
from genbench.leaderboard.rules import Rules, disagreements, misnamed, misreferred
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
)
from genbench.leaderboard.submitting import PNG, config_text
from genbench.leaderboard.untrusted import sha256
from genbench.leaderboard.verified import VERIFIED


def result_problems(path: Path, result: Result, rules: Rules) -> Iterator[Problem]:
    """What a record at `path` says that its configuration, its figures or the rules do not; a line each."""
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


def submission_problems(
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
    entry = read_entry(directory, files)
    for item, result in zip(entry.submission.results, entry.results, strict=True):
        path = directory / item.file
        if sha256(files.get(item.file, b"")) != item.sha256:
            yield Problem(path, f"its contents are not those that {SUBMISSION} lists")
        if item.seed != result.training.seed or item.file != f"{RESULTS}/seed{item.seed}.json":
            yield Problem(path, f"of training seed {result.training.seed}, listed as seed {item.seed}")
        yield from result_problems(path, result, rules)
    known = {path for item in entry.submission.results for path in (item.file, evidence_file(item.seed))}
    for name in sorted(files.keys() - known):
        if "/" in name:
            yield Problem(directory / name, f"of no result that {SUBMISSION} lists")
    yield from _evidence_problems(entry, files, rules)
    derived = yield from _figures_problems(entry, rules)
    if CONFIG in files and files[CONFIG] != config_text(entry.results[0]).encode():
        yield Problem(directory / CONFIG, "not the configuration of the results")
    for review in () if entry.verified is None else entry.verified.reviews:
        for line in objections(review, entry, files, rules):
            yield Problem(directory / VERIFIED, f"the review by {review.by}: {line}")
    return entry, derived


def _evidence_problems(entry: Entry, files: Mapping[str, bytes], rules: Rules) -> Iterator[Problem]:
    """Distances that do not follow from the submitted moments, and moments that are missing."""
    # Here, so that `--help` does without NumPy, and a process of many can first be told to use one thread.
    from genbench.leaderboard.evidence import departures, from_bytes

    for result in entry.results:
        name = evidence_file(result.training.seed)
        path = entry.directory / name
        if name in files:
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
