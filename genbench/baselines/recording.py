"""From finished runs of experiments to `baselines/`."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path

from genbench.baselines.recipes import composing, experiment
from genbench.baselines.shelf import CURVES, GRID, LOG, RESULT, Baseline
from genbench.comparison.contender import Contender
from genbench.comparison.figure import draw
from genbench.errors import UserError
from genbench.leaderboard.record import Result
from genbench.leaderboard.rules import require_agreement
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
    _refuse_disagreement([(home, run, result) for home, (run, result) in zip(homes, found, strict=True)])
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


def _refuse_disagreement(found: Sequence[tuple[Path, Path, Result]]) -> None:
    """Raises UserError where files are missing or a baseline's seeds would not be those of one recipe."""
    for _, run, _ in found:
        if missing := [name for name in (LOG, GRID) if not (run / name).is_file()]:
            raise UserError(
                f"{run} has no {' and no '.join(missing)}. Type the folder of a run that trained."
            )
    for home in {home for home, _, _ in found}:
        new = [result for other, _, result in found if other == home]
        seeds = [result.training.seed for result in new]
        if len(set(seeds)) < len(seeds):
            raise UserError(f"{home}: several runs of one seed, {sorted(seeds)}. Type one run a seed.")
        kept = Baseline.read(home).results if home.is_dir() else ()
        require_agreement([*new, *(result for result in kept if result.training.seed not in seeds)])


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
