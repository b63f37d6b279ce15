"""`metrics.jsonl`: one JSON object a line, {"step": int, "time": seconds, name: number, …}.

"step" is how many optimiser steps were done, "time" the seconds since the run started, counted over all its
sittings, of an interrupted one as far as the last line that is kept. JSON knows no NaN and no infinity: they
are written as the strings "nan", "inf" and "-inf", which Python's `float` reads back.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TextIO

from genbench.harness import durable

Row = tuple[int, dict[str, float]]
"""A step and its values, "time" among them."""


class MetricsFile:
    """Appends to `path`, each line flushed as it is written. A sitting begins here; `clock` is in seconds."""

    def __init__(self, path: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self.path = Path(path)
        self._clock = clock
        self._file: TextIO | None = None
        self._began = clock()
        self._before: float | None = None

    def log(self, step: int, values: Mapping[str, float]) -> dict[str, float]:
        """Writes one line and returns its values with "time" added. Raises OSError if it cannot."""
        file = self._file or self._open()
        row = {"time": round((self._before or 0.0) + self._clock() - self._began, 3)}
        row |= {name: float(value) for name, value in values.items()}
        line = {name: value if math.isfinite(value) else repr(value) for name, value in row.items()}
        file.write(json.dumps({"step": step, **line}) + "\n")
        file.flush()
        return row

    def rows(self) -> Iterator[Row]:
        """What the file holds, oldest first; lines that are not whole are passed over."""
        for _, row in self._lines():
            yield row

    def truncate_after(self, step: float) -> None:
        """Drops, atomically, the lines of later steps and whatever a killed process left half-written."""
        self.close()
        lines = list(self._lines())
        kept = b"".join(line for line, row in lines if row[0] <= step)
        if self.path.exists() and kept != self.path.read_bytes():
            durable.replace_file(self.path, [kept])

    def close(self) -> None:
        """Closes the file; logging opens it again."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _lines(self) -> Iterator[tuple[bytes, Row]]:
        """Whole lines, as they are and as they read."""
        for line in self.path.read_bytes().splitlines(keepends=True) if self.path.exists() else ():
            try:
                values = json.loads(line)
                row = values.pop("step"), {name: float(value) for name, value in values.items()}
            except (ValueError, KeyError, TypeError, AttributeError):
                continue
            if line.endswith(b"\n") and isinstance(row[0], int):
                yield line, row

    def _open(self) -> TextIO:
        self.truncate_after(math.inf)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if self._before is None:
            self._before = max((values.get("time", 0.0) for _, values in self.rows()), default=0.0)
        self._file = self.path.open("a", encoding="utf-8")
        return self._file
