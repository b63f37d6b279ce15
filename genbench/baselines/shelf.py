"""The folder of recorded results, read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from genbench.errors import UserError
from genbench.leaderboard.record import Result
from genbench.leaderboard.rules import require_agreement
from genbench.leaderboard.submission import Figures, figures

RESULT, LOG, GRID = "result.json", "metrics.jsonl", "samples/grid.png"
"""What is kept of a run, where it stands in a run directory."""

CURVES, QUALITY, README = "curves.png", "quality.png", "README.md"
"""What is made of records: of one baseline's, of a data set's, of all."""


@dataclass(frozen=True)
class Baseline:
    """One experiment's recorded results, a training seed each, in their order."""

    path: Path
    results: Sequence[Result]

    @property
    def dataset(self) -> str:
        """The data set's name."""
        return self.path.parent.name

    @property
    def name(self) -> str:
        """`dataset/name`, what `experiment=` is given."""
        return f"{self.dataset}/{self.path.name}"

    @property
    def first(self) -> Result:
        """The record of the first training seed."""
        return self.results[0]

    @cached_property
    def figures(self) -> Figures:
        """Means and spreads over the training seeds, as of a submission."""
        return figures(list(self.results))

    def seed_folder(self, result: Result) -> Path:
        """Where the run of a result is kept."""
        return self.path / f"seed{result.training.seed}"

    @classmethod
    def read(cls, path: Path) -> Baseline:
        """Raises UserError where the folder holds no record, or records of different recipes."""
        results = [Result.read(file) for file in path.glob(f"seed*/{RESULT}")]
        if not results:
            raise UserError(f"{path} holds no seed*/{RESULT}. Type: python -m genbench.baselines record RUN")
        try:
            require_agreement(results)
        except UserError as error:
            raise UserError(f"{path}: {error}") from error
        return cls(path, sorted(results, key=lambda result: result.training.seed))


def baselines(root: Path) -> list[Baseline]:
    """All under `root`, by data set and name."""
    folders = sorted({file.parents[1] for file in root.glob(f"*/*/seed*/{RESULT}")})
    return [Baseline.read(folder) for folder in folders]
