"""Mirrors that need nothing installed: `metrics.csv`, and none at all."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TextIO

from genbench.harness.tracking.metrics_file import Row
from genbench.harness.tracking.tracker import RunInfo


class NoLogger:
    """`logger=none`: metrics.jsonl alone."""

    def preflight(self) -> str:
        return ""

    def start(self, info: RunInfo, history: Sequence[Row]) -> None:
        pass

    def log(self, step: int, values: Mapping[str, float]) -> None:
        pass

    def image(self, step: int, name: str, png_path: Path) -> None:
        pass

    def keep(self, kind: str, files: Sequence[Path], aliases: Sequence[str]) -> None:
        pass

    def finish(self, summary: Mapping[str, float], exit_code: int) -> None:
        pass


class Csv(NoLogger):
    """`logger=csv`: `metrics.csv` in the run directory, a row a line of metrics.jsonl, a column a name.

    A value that a row does not have is an empty cell. A name not seen before adds a column on the right, for
    which the file is written anew.
    """

    def preflight(self) -> str:
        return "metrics are also written to metrics.csv"

    def start(self, info: RunInfo, history: Sequence[Row]) -> None:
        self._path = info.run_dir / "metrics.csv"
        self._rows: list[dict[str, float]] = [{"step": step, **values} for step, values in history]
        self._columns = list(dict.fromkeys(["step", *(name for row in self._rows for name in row)]))
        self._file: TextIO = self._begin()

    def log(self, step: int, values: Mapping[str, float]) -> None:
        row = {"step": step, **values}
        self._rows.append(row)
        new = [name for name in row if name not in self._columns]
        if new:
            self._file.close()
            self._columns += new
            self._file = self._begin()
        else:
            self._writer.writerow(row)
        self._file.flush()

    def finish(self, summary: Mapping[str, float], exit_code: int) -> None:
        self._file.close()

    def _begin(self) -> TextIO:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        file = self._path.open("w", newline="", encoding="utf-8")
        self._writer = csv.DictWriter(file, self._columns)
        self._writer.writeheader()
        self._writer.writerows(self._rows)
        return file
