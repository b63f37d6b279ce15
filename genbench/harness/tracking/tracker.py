"""The tracker: writes `metrics.jsonl` and tells the mirrors, none of which can stop the run."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, Self

from genbench.harness.tracking.metrics_file import MetricsFile, Row

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class RunInfo:
    """What a mirror says about a run.

    group: hash of the configuration without the seed, so that seeds of one recipe stand together; job_type:
    the task; config: the resolved configuration as plain dicts, lists and scalars; better: "min" or "max" by
    the name of a metric, where that name does not tell.
    """

    run_dir: Path
    name: str
    group: str = ""
    job_type: str = "train"
    tags: Sequence[str] = ()
    config: Mapping[str, Any] = field(default_factory=dict)
    better: Mapping[str, str] = field(default_factory=dict)


class Logger(Protocol):
    """A mirror of `metrics.jsonl`. Whatever its methods raise costs the run the mirror, and nothing else.

    It is handed the lines the file already has, then told every new one.
    """

    def preflight(self) -> str:
        """What it will do, in a line for the user ("" for nothing to say). Raises UserError if it cannot."""

    def start(self, info: RunInfo, history: Sequence[Row]) -> None:
        """Opens what has to be open and takes, of the steps and values in `history`, those it lacks.

        Called once, before anything else is told; an earlier process may have told it some or all of them.
        """

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """One line of the file; "time" is among the values."""

    def image(self, step: int, name: str, png_path: Path) -> None:
        """A picture that was saved at `png_path`."""

    def keep(self, kind: str, files: Sequence[Path], aliases: Sequence[str]) -> None:
        """Files worth having with the run; `aliases` say which they are, as "best".

        kind: "checkpoint", "result" or "samples".
        """

    def finish(self, summary: Mapping[str, float], exit_code: int) -> None:
        """The run's end: its final numbers, and 0 if it went well. Called once."""


class Tracker:
    """Logs a run to `run_dir`/metrics.jsonl and to mirrors of it.

    Nothing is opened before the first of `resume`, `log` and `image`. `warn` gets the one line about a mirror
    that failed.
    """

    def __init__(
        self,
        run_dir: Path,
        loggers: Sequence[Logger],
        info: RunInfo,
        warn: Callable[[str], None] = _log.warning,
    ) -> None:
        self._file: MetricsFile | None = MetricsFile(Path(run_dir) / "metrics.jsonl")
        self._mirrors = list(loggers)
        self._info = info
        self._warn = warn
        self._started = False

    @classmethod
    def silent(cls) -> Self:
        """A tracker that does nothing: for every rank but the first."""
        tracker = cls(Path(), (), RunInfo(Path(), ""))
        tracker._file = None
        return tracker

    def resume(self, step: int) -> None:
        """Training goes on (or begins, at 0) after `step` steps: lines of later ones are dropped everywhere.

        Call it before logging wherever steps are going to be done that an earlier sitting may have logged.
        Without it lines are added after those there are, which is what evaluating a finished run wants.
        """
        if self._file is not None:
            self._file.truncate_after(step)
            self._start()

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Logs numbers by name ("loss/critic") for a step. Raises OSError if the file cannot be written."""
        if self._file is None:
            return
        self._start()
        row = self._file.log(step, values)
        self._tell(lambda mirror: mirror.log(step, row))

    def image(self, step: int, name: str, png_path: Path) -> None:
        """Shows a saved picture in the mirrors that can show one."""
        if self._file is not None:
            self._start()
            self._tell(lambda mirror: mirror.image(step, name, png_path))

    def keep(self, kind: str, files: Sequence[Path], aliases: Sequence[str]) -> None:
        """Hands files to the mirrors that keep any."""
        if self._file is not None:
            self._start()
            self._tell(lambda mirror: mirror.keep(kind, files, aliases))

    def finish(self, summary: Mapping[str, float] | None = None, exit_code: int = 0) -> None:
        """Hands over the final numbers and closes everything; a second call does nothing."""
        if self._file is None:
            return
        self._file.close()
        if self._started:
            final = dict(summary or {})
            self._tell(lambda mirror: mirror.finish(final, exit_code))
        self._mirrors = []

    def _start(self) -> None:
        if self._started or self._file is None:
            return
        self._started = True
        history = list(self._file.rows()) if self._mirrors else []
        self._tell(lambda mirror: mirror.start(self._info, history))

    def _tell(self, message: Callable[[Logger], None]) -> None:
        """Passes a message to every mirror; one that raises hears no more."""
        for mirror in list(self._mirrors):
            try:
                message(mirror)
            except Exception as error:
                self._mirrors.remove(mirror)
                self._warn(
                    f"{type(mirror).__name__} failed and is left out from here on; "
                    f"metrics.jsonl has everything ({type(error).__name__}: {error})"
                )
