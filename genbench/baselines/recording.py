"""From finished runs of experiments to `baselines/`."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path

from genbench.baselines.recipes import composing, experiment
from genbench.baselines.shelf import CURVES, GRID, LOG, RESULT, Baseline
from genbench.comparison.contender import Contender
from genbench.comparison.figure import draw
from genbench.errors import UserError
from genbench.leaderboard.record import Result
from genbench.leaderboard.submitting import finished, published


def record(runs: Iterable[Path], root: Path) -> list[Path]:
    """Keeps of each run its record, log and grid under `root`; returns the baselines' folders.

    A seed recorded before is replaced. Raises UserError where a run is unfinished, was made from a changed
    checkout, or has the settings of no experiment; then nothing has been written.
    """
    found = [(run, published(finished(run))) for run in runs]
    if not found:
        raise UserError("No runs were given. Type: python -m genbench.baselines record RUN [RUN ...]")
    with composing():
        homes = [_home(result, run, root) for run, result in found]
    for (run, result), home in zip(found, homes, strict=True):
        seed = home / f"seed{result.training.seed}"
        (seed / GRID).parent.mkdir(parents=True, exist_ok=True)
        result.write(seed / RESULT)
        for name in (LOG, GRID):
            shutil.copyfile(run / name, seed / name)
    folders = sorted(set(homes))
    for home in folders:
        baseline = Baseline.read(home)
        draw([Contender.read(baseline.seed_folder(result)) for result in baseline.results], home / CURVES)
    return folders


def _home(result: Result, run: Path, root: Path) -> Path:
    if result.git.dirty is not False:
        raise UserError(f"{run}: made from a changed checkout, or outside of one. Commit, and run it again.")
    name = experiment(result.config)
    if name is None:
        typed = " ".join(result.command) or "nothing"
        raise UserError(
            f"{run}: no experiment has its settings; typed was {typed}. Type experiment=DATASET/NAME and no "
            "more than the seed besides; a new one is a file in conf/experiment/."
        )
    return root / name
