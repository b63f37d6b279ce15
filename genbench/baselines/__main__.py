"""`python -m genbench.baselines record|build|check|reproduce`: see the package's docstring."""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import groupby
from pathlib import Path

from genbench.baselines import figure
from genbench.baselines.checking import problems
from genbench.baselines.excerpt import filled
from genbench.baselines.page import page
from genbench.baselines.recording import record
from genbench.baselines.reproducing import again, compare
from genbench.baselines.shelf import QUALITY, README, Baseline, baselines
from genbench.errors import UserError
from genbench.unread import ending_with_the_reader


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command and returns the exit status: 0, or 1 where something is not in order."""
    options = _parser().parse_args(arguments)
    try:
        with ending_with_the_reader():
            return int(options.run(options))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


def _record(options: argparse.Namespace) -> int:
    for folder in record(options.runs, options.root):
        print(f"Recorded {folder}")
    return _build(options)


def _build(options: argparse.Namespace) -> int:
    for dataset, members in groupby(baselines(options.root), key=lambda each: each.dataset):
        print(f"Wrote {figure.draw(list(members), options.root / dataset / QUALITY)}")
    (options.root / README).write_text(page(options.root), encoding="utf-8")
    print(f"Wrote {options.root / README}")
    written = options.root.absolute().parent / README
    if written.is_file():
        text = written.read_text(encoding="utf-8")
        if text != (new := filled(text, options.root)):
            written.write_text(new, encoding="utf-8")
            print(f"Filled in the results in {written}")
    return 0


def _check(options: argparse.Namespace) -> int:
    found = problems(options.root)
    for problem in found:
        print(problem, file=sys.stderr)
    return 1 if found else 0


def _reproduce(options: argparse.Namespace) -> int:
    chosen = _chosen(options)
    sound = True
    with ThreadPoolExecutor(max(1, options.jobs)) as pool:
        for holds, line in pool.map(_reproduced, chosen):
            sound &= holds
            print(line, flush=True)
    return 0 if sound else 1


def _reproduced(baseline: Baseline) -> tuple[bool, str]:
    """(does the baseline hold? what to say of it), after training its first seed again."""
    start = time.monotonic()
    try:
        with tempfile.TemporaryDirectory() as folder:
            found = again(baseline, Path(folder) / "run")
    except subprocess.CalledProcessError as error:
        return False, f"{baseline.name}: the run ended with status {error.returncode}"
    comparisons = compare(baseline, found)
    holds = not any(comparison.holds is False for comparison in comparisons)
    said = "; ".join(map(str, comparisons))
    return holds, f"{baseline.name}: {said} ({time.monotonic() - start:.0f} s)"


def _chosen(options: argparse.Namespace) -> list[Baseline]:
    known = {baseline.name: baseline for baseline in baselines(options.root)}
    if unknown := [name for name in options.names if name not in known]:
        raise UserError(f"{', '.join(unknown)}: not recorded. Recorded are {', '.join(known) or 'none'}.")
    return [known[name] for name in options.names or known]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m genbench.baselines", description=__doc__)
    parser.add_argument("--root", type=Path, default=Path("baselines"), help="the folder of records")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    recording = commands.add_parser("record", help="keep what matters of finished runs of experiments")
    recording.add_argument("runs", nargs="+", type=Path, metavar="RUN")
    recording.set_defaults(run=_record)
    commands.add_parser("build", help="README.md and figures from the records").set_defaults(run=_build)
    commands.add_parser("check", help="are pages and recipes those recorded?").set_defaults(run=_check)
    reproducing = commands.add_parser("reproduce", help="train first seeds again and compare scores")
    reproducing.add_argument("names", nargs="*", metavar="DATASET/NAME", help="all where none is named")
    reproducing.add_argument("--jobs", type=int, default=1, metavar="N", help="how many at a time")
    reproducing.set_defaults(run=_reproduce)
    return parser


if __name__ == "__main__":
    sys.exit(main())
