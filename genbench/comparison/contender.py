"""A run as far as it has come: configuration, log, record if there is one, and the newest grid of samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from genbench.errors import UserError
from genbench.harness.rundir import RunDirectory
from genbench.harness.tracking.direction import direction_of
from genbench.harness.tracking.metrics_file import MetricsFile, Row
from genbench.leaderboard.record import Metric, Result

SCORES = "eval/"
"""How the names of scores begin in the log."""

SPREADS = {"std": "evaluation seeds", "bootstrap_std": "bootstrap over images", "split_std": "splits"}
"""The spreads a metric may have, the best known first, and over what each is."""


@dataclass(frozen=True)
class Score:
    """A metric of a run.

    spread: its deviation, and over what; step: where in training, for one on the way, None for the record's;
    judge: what it depends on besides the samples, so that only values of one judge are compared.
    """

    value: float
    better: str
    spread: tuple[float, str] | None = None
    step: int | None = None
    judge: tuple[str | None, ...] = ()


@dataclass(frozen=True)
class Contender:
    """One of the runs compared. rows: the lines of its log, oldest first; result: None where unfinished."""

    path: Path
    config: Mapping[str, Any]
    rows: Sequence[Row]
    result: Result | None
    grid: Path | None

    @classmethod
    def read(cls, path: Path) -> Contender:
        """The run, or the evaluation of one, in a folder. Raises UserError, in a line, where none is.

        A folder that task=evaluate began in, with weights from elsewhere, was never trained: it stands for
        its evaluation.
        """
        directory = RunDirectory(path.expanduser())
        if evaluations := _evaluations_alone(directory):
            if len(evaluations) > 1:
                found = ", ".join(map(str, evaluations))
                raise UserError(
                    f"{path} holds no training and several evaluations; type one of them: {found}"
                )
            return replace(cls.read(evaluations[0]), path=path)
        result = Result.read(directory.result_file) if directory.result_file.is_file() else None
        if not directory.started and result is None:
            what = "holds no run: no config.yaml and no result.json" if path.is_dir() else "is no folder"
            raise UserError(f"{path} {what}. Type the folders of two or more runs, runs=[RUN,RUN].")
        config = directory.config() if directory.started else result.config if result else {}
        return cls(path, config, list(MetricsFile(directory.metrics_file).rows()), result, _grid(directory))

    def scores(self) -> dict[str, Score]:
        """The record's metrics by name; of an unfinished run the last of each on the way."""
        if self.result is not None:
            return {metric.name: _recorded(metric) for metric in self.result.metrics}
        found = {}
        for step, values in self.rows:
            for name in (name for name in values if name.startswith(SCORES)):
                better = {"min": "lower", "max": "higher"}.get(str(direction_of(name)), "neither")
                found[name.removeprefix(SCORES)] = Score(values[name], better, step=step)
        return found

    def last(self, name: str) -> float | None:
        """The last value of a name in the log."""
        return next((values[name] for _, values in reversed(self.rows) if name in values), None)

    def curve(self, name: str) -> tuple[list[float], list[float]]:
        """Images seen and the values of a name. A line that does not say has seen what the last one had."""
        seen, places, heights = 0.0, [], []
        for _, values in self.rows:
            seen = values.get("images_seen", seen)
            if name in values:
                places.append(seen)
                heights.append(values[name])
        return places, heights

    def logged(self) -> list[str]:
        """All names in the log, in the order of their first appearance."""
        return list(dict.fromkeys(name for _, values in self.rows for name in values))


def _evaluations_alone(directory: RunDirectory) -> list[Path]:
    """The folders of the evaluations in a folder that nothing was trained in."""
    if directory.result_file.is_file() or any(directory.checkpoints.glob("*.json")):
        return []
    if any(MetricsFile(directory.metrics_file).rows()):
        return []
    return sorted(file.parent for file in (directory.path / "evaluations").glob("*/result.json"))


def _recorded(metric: Metric) -> Score:
    known = ((getattr(metric, name), over) for name, over in SPREADS.items())
    spread = next(((deviation, over) for deviation, over in known if deviation is not None), None)
    judge = (metric.extractor_sha256, metric.reference_sha256, metric.quantiser, metric.resize)
    return Score(metric.value, metric.better, spread, judge=judge)


def _grid(directory: RunDirectory) -> Path | None:
    """The grid of the finished run, else the newest on the way."""
    final = directory.samples / "grid.png"
    on_the_way = sorted(path for path in directory.samples.glob("step-*.png") if path.stem[5:].isdigit())
    return final if final.is_file() else on_the_way[-1] if on_the_way else None


def names(contenders: Sequence[Contender]) -> list[str]:
    """What to call runs: the last parts of their paths, as few as tell them apart."""
    parts = [contender.path.resolve().parts for contender in contenders]
    for count in range(1, max(map(len, parts)) + 1):
        tails = ["/".join(each[-count:]) for each in parts]
        if len(set(tails)) == len(set(parts)):
            break
    return tails
