"""Who stands where: the submissions' rows, track by track, with ranks and ties. Both pages show just this.

Rows of a track's closed division are sorted by its main metric: the Fréchet distance most of them have (among
equals `fid` before `fd_<extractor>`); rows without it come last, unranked. Rows i and j are tied where |m_i -
m_j| <= sqrt((s_i^2 + s_j^2) / 2), with m the means and s the sample standard deviations over training seeds;
a row shares the rank of the row that opened it, so that a chain of near-ties cannot pull a whole table into
one rank. Open rows follow, unranked.

A `Row` is what is kept of a submission: its figures and a few lines, not its results. Ten thousand
submissions fit in memory that way, and each is read once.
"""

from __future__ import annotations

import json
import math
import operator
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import quote

from genbench.errors import UserError
from genbench.leaderboard.record import Commit
from genbench.leaderboard.rules import Track, is_distance, track
from genbench.leaderboard.submission import (
    Division,
    Entry,
    Figures,
    MetricFigures,
    figures,
    read_entry,
    submission_directories,
)
from genbench.leaderboard.verified import REPRODUCED, scored, told, word

NOT_TELLING = ("model=", "dataset=", "seed=", "metrics", "measures=", "likelihood=", "trainer.evaluate")
"""How overrides begin that tell no recipe of a model from another in its table."""


@dataclass(frozen=True, slots=True)
class Row:
    """One submission in its table; `rank` is None where it is not ranked, `tied` whether others share it.

    `place` is its directory from the leaderboard's, ending in "/". `config` is its configuration as JSON,
    `commands` what was typed, a list of overrides for each training seed; `marks` what its reviews have
    earned, each a word and the rest of a line, the best first.
    """

    track: Track
    place: str
    submitter: str
    division: Division
    note: str | None
    outside_data: str | None
    date: str
    group_hash: str
    results: tuple[str, ...]
    figures: Figures
    commits: tuple[Commit, ...]
    commands: tuple[tuple[str, ...], ...]
    config: str
    marks: tuple[tuple[str, str], ...] = ()
    rank: int | None = None
    tied: bool = False

    @property
    def address(self) -> str:
        """`place` as it may stand in a link."""
        return quote(os.fsencode(self.place))

    @property
    def variant(self) -> str:
        """What was typed that tells the recipe from others of its model, in 60 characters at most.

        "udm-blur" of experiment=digits/udm-blur, "divergence=kl"; empty where nothing was.
        """
        typed = [each for each in self.commands[0] if not each.startswith(NOT_TELLING)]
        words = [each.removeprefix(f"experiment={self.figures.dataset}/") for each in typed]
        return "" if words == [self.figures.model] else ", ".join(words)[:60]

    def metric(self, name: str) -> MetricFigures | None:
        """The row's figures for a metric, None where it has none."""
        return next((metric for metric in self.figures.metrics if metric.name == name), None)


@dataclass(frozen=True)
class Table:
    """One track: its rows in order, its main metric (None where no row has a distance), all its metrics."""

    track: Track
    main: str | None
    metrics: tuple[MetricFigures, ...]
    rows: tuple[Row, ...]


def row(entry: Entry, root: Path, derived: Figures | None = None) -> Row:
    """The row of a submission under `root`; `derived` are its figures, where they are at hand already."""
    submission, results = entry.submission, entry.results
    first = min(results, key=lambda result: result.training.seed)
    return Row(
        track=track(first),
        place=entry.directory.relative_to(root).as_posix() + "/",
        submitter=submission.submitter,
        division=submission.division,
        note=submission.note,
        outside_data=submission.outside_data,
        date=submission.date,
        group_hash=submission.group_hash,
        results=tuple(item.file for item in submission.results),
        figures=figures(results) if derived is None else derived,
        commits=tuple(sorted({result.git.commit for result in results if result.git.commit is not None})),
        commands=tuple(tuple(result.command) for result in results),
        config=json.dumps(first.config, sort_keys=True, separators=(",", ":")),
        marks=_marks(entry),
    )


def _marks(entry: Entry) -> tuple[tuple[str, str], ...]:
    if entry.verified is None:
        return ()
    seeds, metrics = len(entry.results), len(scored(entry.results[0]))
    marks = [(word(review, seeds, metrics), told(review)) for review in entry.verified.reviews]
    return tuple(sorted(marks, key=lambda mark: mark[0] != REPRODUCED))


def read_rows(root: Path) -> Iterable[Row]:
    """The rows of all submissions under `root`. Raises UserError naming one that cannot be read."""
    for directory in submission_directories(root):
        if directory.is_symlink() or not directory.is_dir():
            raise UserError(f"{directory}: expected a submission's directory")
        yield row(read_entry(directory), root)


def tables(rows: Iterable[Row]) -> list[Table]:
    """The tracks of `rows`, sorted by data set, resolution, split, samples and conditioning."""
    by_track: dict[Track, list[Row]] = {}
    for one in rows:
        by_track.setdefault(one.track, []).append(one)
    return [_table(key, by_track[key]) for key in sorted(by_track)]


def _table(key: Track, rows: Sequence[Row]) -> Table:
    closed = [row for row in rows if row.division == "closed"]
    opened = [row for row in rows if row.division == "open"]
    main = main_metric(closed or opened)
    kinds = {metric.name: metric for row in rows for metric in row.figures.metrics}
    order = sorted(kinds, key=lambda name: (name != main, name))
    ranked = ranks(_sorted(closed, main), main)
    return Table(key, main, tuple(kinds[name] for name in order), tuple(ranked + _sorted(opened, main)))


def main_metric(rows: Sequence[Row]) -> str | None:
    """The distance most rows have; among equals `fid`, then the first by name; None where there is none."""
    names = (metric.name for row in rows for metric in row.figures.metrics)
    counts = Counter(name for name in names if is_distance(name))
    return min(counts, key=lambda name: (-counts[name], name != "fid", name)) if counts else None


def _sorted(rows: Sequence[Row], main: str | None) -> list[Row]:
    def key(row: Row) -> tuple[float, str]:
        metric = row.metric(main) if main else None
        return (math.inf if metric is None else metric.mean, row.place)

    return sorted(rows, key=key)


def ranks(rows: Sequence[Row], main: str | None) -> list[Row]:
    """Sorted rows with their ranks: 1, 1, 3 where the first two are tied; None without the main metric."""
    ranked: list[Row] = []
    leader: Row | None = None
    for position, row in enumerate(rows, start=1):
        rank = None
        if main is not None and row.metric(main) is not None:
            if leader is None or not tied(leader.metric(main), row.metric(main)):
                leader = replace(row, rank=position)
            rank = leader.rank
        ranked.append(replace(row, rank=rank))
    sharing = Counter(map(operator.attrgetter("rank"), ranked))
    return [replace(row, tied=row.rank is not None and sharing[row.rank] > 1) for row in ranked]


def tied(one: MetricFigures | None, other: MetricFigures | None) -> bool:
    """Whether two means differ by no more than the pooled spread over training seeds."""
    if one is None or other is None:
        return False
    pooled = math.sqrt(((one.std or 0.0) ** 2 + (other.std or 0.0) ** 2) / 2)
    return abs(one.mean - other.mean) <= pooled
