"""`python -m genbench.leaderboard submit|check|verify|build|schema`: see the package's docstring."""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from genbench.errors import UserError, printable
from genbench.leaderboard.checking import examine
from genbench.leaderboard.from_wandb import PREFIX, fetch
from genbench.leaderboard.page import schemas, write
from genbench.leaderboard.rules import shipped_rules
from genbench.leaderboard.submission import SUBMISSION
from genbench.leaderboard.submitting import submit
from genbench.unread import ending_with_the_reader


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command and returns the exit status: 0, or 1 where something is not in order."""
    options = _parser().parse_args(arguments)
    try:
        with ending_with_the_reader():
            return int(options.run(options))
    except UserError as error:
        # Lines of ours stay lines; what strangers wrote inside them cannot drive the terminal.
        print("error: " + "\n".join(map(printable, str(error).split("\n"))), file=sys.stderr)
        return 1


def _submit(options: argparse.Namespace) -> int:
    with tempfile.TemporaryDirectory() as scratch:
        places = (Path(scratch) / str(number) for number in range(len(options.runs)))
        directory = submit(
            [
                fetch(run, place) if run.startswith(PREFIX) else Path(run)
                for run, place in zip(options.runs, places, strict=True)
            ],
            name=options.name,
            division=options.division,
            note=options.note,
            outside_data=options.outside_data,
            to=options.to,
        )
    print(f"Wrote {directory}. Next: python -m genbench.leaderboard build{_to(options.to)}")
    return 0


def _check(options: argparse.Namespace) -> int:
    failures = 0
    for verdict in examine(options.path):
        print(f"ok    {verdict.path}" if not verdict.problems else f"FAIL  {verdict.path}")
        for problem in verdict.problems:
            print(f"      {problem}")
        failures += len(verdict.problems)
    if failures:
        print(f"{failures} problem(s)", file=sys.stderr)
    return 1 if failures else 0


def _verify(options: argparse.Namespace) -> int:
    if options.note is not None and options.by is None:
        raise UserError("--note stands beside a review: type --by NAME too")
    # Here, for they import NumPy and torch.
    from genbench.leaderboard.reviewing import record
    from genbench.leaderboard.verifying import describe, review, verify

    found = verify(
        options.submission,
        options.runs,
        scores=options.scores,
        device=options.device,
        data_root=options.data_root,
        by=options.by,
        note=options.note,
    )
    drawn = []
    for one in found:
        print(describe(one), flush=True)
        drawn.append(one)
    if not all(one.agrees for one in drawn):
        return 1
    if options.by is not None:
        said = review(options.submission, drawn, options.by, options.note, options.device)
        path = record(options.submission, said, shipped_rules())
        typed: Path = options.submission
        board = (typed if len(typed.parents) > 2 else typed.absolute()).parents[2]
        print(f"Wrote {path}. Next: python -m genbench.leaderboard build{_to(board)}")
    return 0


def _build(options: argparse.Namespace) -> int:
    for path in write(options.to):
        print(f"Wrote {path}")
    return 0


def _schema(options: argparse.Namespace) -> int:
    print(schemas()[f"{options.of}.schema.json"], end="")
    return 0


def _to(root: Path) -> str:
    return "" if root == Path("leaderboard") else f" --to {root}"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m genbench.leaderboard",
        description="Turn finished runs into a leaderboard that is checked and regenerated.",
    )
    commands = parser.add_subparsers(required=True, metavar="submit|check|verify|build|schema")

    command = commands.add_parser("submit", help="make one submission of a recipe's training seeds")
    command.add_argument(
        "runs", nargs="+", metavar="RUN", help="directory of a finished run, or wandb:ENTITY/PROJECT/RUN"
    )
    command.add_argument("--name", default="anonymous", help="who submits (default: anonymous)")
    command.add_argument(
        "--division", choices=("closed", "open"), help="default: closed where the runs qualify, else open"
    )
    command.add_argument("--note", metavar="TEXT", help="one line shown under the table")
    command.add_argument("--outside-data", metavar="TEXT", help="declares data beyond the data set's own")
    _add_root(command)
    command.set_defaults(run=_submit)

    command = commands.add_parser("check", help="validate one thing, or the whole leaderboard")
    command.add_argument(
        "path",
        nargs="?",
        type=Path,
        default=Path("leaderboard"),
        metavar="PATH",
        help=f"a result.json, a run, a directory with {SUBMISSION}, or a leaderboard (default: leaderboard)",
    )
    command.set_defaults(run=_check)

    command = commands.add_parser("verify", help="draw a submission's images again from checkpoints, compare")
    command.add_argument("submission", type=Path, metavar="SUBMISSION", help=f"a directory with {SUBMISSION}")
    command.add_argument(
        "runs",
        nargs="+",
        metavar="RUN",
        help="a run directory or checkpoint file, of any of the submission's training seeds; or SEED=PATH",
    )
    command.add_argument("--scores", action="store_true", help="draw and score all samples again, too")
    command.add_argument("--device", default="auto", help="auto, cpu, cuda (default: auto)")
    command.add_argument(
        "--data-root", type=Path, metavar="DIR", help="where data sets are (default: GENBENCH_DATA)"
    )
    command.add_argument(
        "--by", metavar="NAME", help="where all agrees, leave on the board that NAME drew it again"
    )
    command.add_argument("--note", metavar="TEXT", help="one line beside that: whose checkpoints these were")
    command.set_defaults(run=_verify)

    command = commands.add_parser("build", help="regenerate README.md, index.html and the schemas")
    _add_root(command)
    command.set_defaults(run=_build)

    command = commands.add_parser(
        "schema", help="print the JSON Schema of result.json, submission.json or verified.json"
    )
    command.add_argument("of", nargs="?", choices=("result", "submission", "verified"), default="result")
    command.set_defaults(run=_schema)
    return parser


def _add_root(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--to",
        type=Path,
        default=Path("leaderboard"),
        metavar="DIR",
        help="the leaderboard's directory (default: leaderboard)",
    )


if __name__ == "__main__":
    sys.exit(main())
