"""A review held against the submission it is of, and written beside it. What a review is: `verified`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from genbench.errors import UserError
from genbench.leaderboard.inventory import contents
from genbench.leaderboard.record import Git, Line, Name, Result, parse, to_bytes
from genbench.leaderboard.rules import Rules
from genbench.leaderboard.submission import (
    SUBMISSION,
    SUMS,
    Entry,
    evidence_file,
    read_entry,
)
from genbench.leaderboard.submitting import sums
from genbench.leaderboard.untrusted import sha256, write_atomically
from genbench.leaderboard.verified import (
    MOST_REVIEWS,
    VERIFIED,
    Review,
    Verification,
    Verified,
    allowed,
    scored,
)


def objections(review: Review, entry: Entry, files: Mapping[str, bytes], rules: Rules) -> Iterator[str]:
    """Why a review is not one of this submission, or is no reason for a mark; a line each.

    files: the submission's, by path inside it.
    """
    seeds = [found.seed for found in review.seeds]
    yield from reviewer_objections(review.by, review.note, seeds, review.git, entry)
    if review.submission != sha256(files[SUBMISSION]):
        yield f"of another {SUBMISSION}; it was changed since"
    results = {result.training.seed: result for result in entry.results}
    for found in review.seeds:
        if found.seed not in results:
            yield f"of training seed {found.seed}, which was not submitted"
            continue
        for line in _departures(found, results[found.seed], entry.directory, files, rules):
            yield f"training seed {found.seed}: {line}"


def reviewer_objections(
    by: str, note: str | None, seeds: Sequence[int], git: Git, entry: Entry
) -> Iterator[str]:
    """What of that is known before anything is drawn; by and note: as they were typed."""
    for what, kind, text in (("name", Name, by), ("note", Line, note)):
        try:
            TypeAdapter(kind).validate_python("-" if text is None else text)
        except ValidationError as error:
            yield f"its {what} cannot stand on a page: {error.errors()[0]['msg']}"
    if len(set(seeds)) < len(seeds):
        yield f"training seeds must be distinct, found {list(seeds)}"
    others = [] if entry.verified is None else [other.by for other in entry.verified.reviews]
    if len({*map(_folded, others), _folded(by)}) > MOST_REVIEWS:
        yield f"there are {len(others)} reviews already, as many as are kept"
    if _folded(by) == _folded(entry.submission.submitter):
        yield f"{by} is its own submitter; somebody else's word is wanted"
    if git.commit is None or git.dirty is not False:
        yield "made with uncommitted changes, or outside a git checkout: nobody can tell what ran"


def _folded(name: str) -> str:
    """A name without what a slip of the hand changes; unlike a submission's slug, in any script."""
    return " ".join(name.split()).casefold()


def _departures(
    found: Verification, result: Result, directory: Path, files: Mapping[str, bytes], rules: Rules
) -> Iterator[str]:
    from genbench.leaderboard.evidence import from_bytes  # here, for it imports NumPy

    name = evidence_file(found.seed)
    try:
        images = from_bytes(files.get(name, b""), directory / name, result, rules).images
    except UserError:
        yield f"{name} cannot be read, so there are no images to compare"
        return
    if (found.sha256, found.images) != (sha256(images.tobytes()), len(images)):
        yield f"compared were {found.images} images, not the {len(images)} of {name}"
    if not found.identical <= found.near <= found.images:
        yield f"of {found.images} images {found.near} near and {found.identical} identical cannot be"
    metrics = {metric.name: metric for metric in scored(result)}
    if found.scores and [score.name for score in found.scores] != list(metrics):
        yield "its scores are not the record's"
        return
    for score in found.scores:
        metric = metrics[score.name]
        if (score.recorded, score.allowed) != (metric.value, allowed(metric)):
            yield f"{score.name} is not what the record says, or its bound another"
    if not found.agrees:
        yield "images or scores are not those that were submitted"


def record(directory: Path, review: Review, rules: Rules) -> Path:
    """Adds a review to a submission that is in order, in place of an earlier one by the same name.

    Raises UserError, with every reason and nothing written, where there are objections.
    """
    files = _files(directory)
    entry = read_entry(directory, files)
    if reasons := list(objections(review, entry, files, rules)):
        raise UserError(f"{directory}: nothing was recorded: {'; '.join(reasons)}")
    others = [] if entry.verified is None else entry.verified.reviews
    kept = [other for other in others if _folded(other.by) != _folded(review.by)]
    value = Verified(schema_version=1, reviews=[*kept, review]).model_dump(mode="json")
    path = directory / VERIFIED
    written = to_bytes(parse(Verified, value, path))
    write_atomically(path, written)
    listed = {name: data for name, data in files.items() if name != SUMS} | {VERIFIED: written}
    write_atomically(directory / SUMS, sums(listed).encode())
    return path


def _files(directory: Path) -> dict[str, bytes]:
    reading = contents(directory)
    try:
        problem = next(reading)
    except StopIteration as end:
        return dict(end.value)
    raise UserError(str(problem))
