"""task=compare: finished and unfinished runs side by side, in the terminal and as a picture.

    python -m genbench task=compare runs=[runs/a,runs/b]          or: genbench compare runs/a runs/b

Writes comparison.png and comparison.txt to run_dir, runs/<time>-compare where that is not given.
"""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

from genbench.cli import Typed
from genbench.comparison.contender import Contender
from genbench.comparison.figure import draw
from genbench.comparison.report import report
from genbench.errors import UserError


def run(config: dict[str, Any], typed: Typed) -> None:
    """Compares the runs in the folders `runs`."""
    if len(config["runs"]) < 2:
        raise UserError("compare needs runs to compare: type compare RUN RUN, folders of two or more.")
    contenders = [Contender.read(Path(run)) for run in config["runs"]]
    said = report(contenders)
    print(said)
    folder = Path(config["run_dir"] or f"runs/{datetime.now():%Y%m%d-%H%M%S}-compare")
    picture = draw(contenders, folder / "comparison.png")
    (folder / "comparison.txt").write_text(f"{said}\n", encoding="utf-8")
    print(f"curves and grids: {picture}")
