"""From finished runs to one submission directory.

The runs are training seeds of one recipe. What is published is what determines the result: the paths, devices
and logins of the submitter's machine are left out of the configuration and of the command (the
configuration's hash does not know them). The directory appears whole or not at all.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from genbench.configuration import CARRIED_OUT, SHOWN, config_hash, determining, group_hash
from genbench.errors import UserError
from genbench.leaderboard import plain_yaml
from genbench.leaderboard.divisions import closed_objections
from genbench.leaderboard.record import Result, parse, to_bytes, today
from genbench.leaderboard.rules import Rules, require_agreement, shipped_rules
from genbench.leaderboard.submission import (
    CONFIG,
    RESULTS,
    SAMPLES,
    SUBMISSION,
    SUMS,
    Division,
    Submission,
    evidence_file,
    figures,
    plain,
    slug,
)
from genbench.leaderboard.untrusted import IMAGE_LIMIT, read_bytes, sha256

PNG = b"\x89PNG\r\n\x1a\n"
"""The first eight bytes of every PNG file."""


def submit(
    runs: Sequence[Path | str],
    *,
    name: str = "anonymous",
    division: Division | None = None,
    note: str | None = None,
    outside_data: str | None = None,
    to: Path | str = "leaderboard",
    rules: Rules | None = None,
    date: str | None = None,
    say: Callable[[str], object] = print,
) -> Path:
    """Writes `to`/submissions/<dataset>/<slug>/ from run directories and returns it.

    `division` None means closed where the runs qualify and otherwise open, with a line that says why.
    `outside_data` declares training data beyond the data set's own. `date` is "YYYY-MM-DD", today by default.
    Raises UserError where a run is unfinished, its samples are not those that were scored, the runs do not
    belong together, closed was asked for and is not deserved (with every reason), or the same submission is
    there already.
    """
    from genbench.leaderboard.gathering import gather  # here, for it imports torch

    rules = shipped_rules() if rules is None else rules
    folders = sorted({Path(run) for run in runs})
    if not folders:
        raise UserError("No runs were given. Type: python -m genbench.leaderboard submit RUN [RUN ...]")
    found = [(published(finished(run)), run) for run in folders]
    found.sort(key=lambda pair: pair[0].training.seed)
    results = [result for result, _ in found]
    require_agreement(results, [str(run) for _, run in found])
    grid = _grid(found[0][1])
    evidence = {evidence_file(r.training.seed): gather(run, r, rules) for r, run in found}
    row, group = figures(results), results[0].group_hash
    directory = Path(to) / "submissions" / plain(row.dataset) / slug(row, group, name)
    if directory.exists():
        raise UserError(
            f"{directory} exists: this recipe was submitted under this name before. "
            "Remove that directory to replace it, or give another --name."
        )
    division = _division(results, division, outside_data, rules, say)

    contents = {f"{RESULTS}/seed{result.training.seed}.json": to_bytes(result) for result in results}
    contents |= evidence
    contents[SAMPLES] = grid
    contents[CONFIG] = config_text(results[0]).encode()
    value = {
        "schema_version": 1,
        "submitter": name,
        "division": division,
        "note": note,
        "outside_data": outside_data,
        "date": date or today(),
        "group_hash": group,
        "results": [
            {
                "seed": result.training.seed,
                "file": f"{RESULTS}/seed{result.training.seed}.json",
                "sha256": sha256(to_bytes(result)),
            }
            for result in results
        ],
        "figures": row.model_dump(mode="json"),
    }
    contents[SUBMISSION] = to_bytes(parse(Submission, value, Path(SUBMISSION)))
    contents[SUMS] = sums(contents).encode()
    return _create(directory, contents)


def config_text(result: Result) -> str:
    """config.yaml of a submission: what determines the result, without the training seed."""
    config = {key: value for key, value in determining(result.config).items() if key != "seed"}
    return plain_yaml.dump(config)


def sums(contents: dict[str, bytes]) -> str:
    """SHA256SUMS of files (path to contents), in the form of `sha256sum`, sorted by path."""
    return "".join(f"{sha256(contents[path])}  {path}\n" for path in sorted(contents))


def finished(run: Path) -> Result:
    """The record of a finished run; UserError where there is none, or one whose hashes do not hold."""
    if not (run / "result.json").exists():
        raise UserError(
            f"{run}: no result.json; only finished runs can be submitted. "
            f"Finish it with the command that started it, or re-score it: "
            f"python -m genbench task=evaluate run_dir={run}"
        )
    result = Result.read(run / "result.json")
    if config_hash(result.config) != result.config_hash or group_hash(result.config) != result.group_hash:
        raise UserError(
            f"{run}/result.json: its hashes are not those of its configuration "
            f"(expected {config_hash(result.config)[:SHOWN]}, found {result.config_hash[:SHOWN]}). "
            f"Re-score the run: python -m genbench task=evaluate run_dir={run}"
        )
    return result


def published(result: Result) -> Result:
    """`result` without what only says where and how the run was carried out."""
    command = [override for override in result.command if determines(override)]
    return result.model_copy(update={"config": determining(result.config), "command": command})


def determines(override: str) -> bool:
    """Whether an override says what a run's result will be, and not where and how it is carried out."""
    key, equals, _ = override.lstrip("+~").partition("=")
    key = key.partition("@")[0]
    parts = key.split(".")
    prefixes = {".".join(parts[: count + 1]) for count in range(len(parts))}
    return bool(equals) and not key.startswith(("-", "hydra/")) and not (prefixes & CARRIED_OUT)


def _grid(run: Path) -> bytes:
    path = run / "samples" / "grid.png"
    if not path.exists():
        raise UserError(f"{path} is missing. Type: python -m genbench task=sample run_dir={run}")
    contents = read_bytes(path, IMAGE_LIMIT)
    if not contents.startswith(PNG):
        raise UserError(f"{path} is not a PNG image. Type: python -m genbench task=sample run_dir={run}")
    return contents


def _division(
    results: Sequence[Result],
    wanted: Division | None,
    outside_data: str | None,
    rules: Rules,
    say: Callable[[str], object],
) -> Division:
    if wanted == "open":
        return "open"
    objections = closed_objections(results, outside_data, rules)
    if not objections:
        return "closed"
    if wanted == "closed":
        raise UserError(
            "These runs do not qualify for the closed division:\n  "
            + "\n  ".join(objections)
            + "\nType --division open to submit them to the open division."
        )
    say(f"For the open division, because: {'; '.join(objections)}.")
    return "open"


def _create(directory: Path, contents: dict[str, bytes]) -> Path:
    directory.parent.mkdir(parents=True, exist_ok=True)
    building = Path(tempfile.mkdtemp(dir=directory.parent, prefix=".building-"))
    try:
        for path, data in contents.items():
            (building / path).parent.mkdir(exist_ok=True)
            (building / path).write_bytes(data)
        building.chmod(0o755)  # mkdtemp's 0700 would hide it from the group
        os.rename(building, directory)
    except BaseException:
        shutil.rmtree(building)
        raise
    return directory
