"""Which files a submission is made of: known names, no links, nothing larger than its kind, true sums."""

from __future__ import annotations

import os
import re
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from genbench.errors import UserError, printable
from genbench.leaderboard.submission import (
    CONFIG,
    EVIDENCE,
    EVIDENCE_NAME,
    RESULT_NAME,
    RESULTS,
    SAMPLES,
    SUBMISSION,
    SUMS,
)
from genbench.leaderboard.untrusted import (
    EVIDENCE_LIMIT,
    IMAGE_LIMIT,
    RECORD_LIMIT,
    read_bytes,
    sha256,
)
from genbench.leaderboard.verified import VERIFIED

LIMITS = {SAMPLES: IMAGE_LIMIT, EVIDENCE: EVIDENCE_LIMIT}
"""Bytes of the largest files, where they are no records."""

SUBMISSION_LIMIT = 32 << 20
"""Bytes of a whole submission: a hundred training seeds of an extractor of 256 features have 30 MB."""

MOST_ENTRIES = 200
"""Entries of a directory that are looked at: a submission has at most a hundred results."""


@dataclass(frozen=True)
class Problem:
    """One failure: the file or directory it is in, and one line that says what was found and expected."""

    path: Path
    message: str

    def __str__(self) -> str:
        return printable(f"{self.path}: {self.message}")  # names of strangers' files may hold anything


def contents(directory: Path) -> Generator[Problem, None, dict[str, bytes]]:
    """Yields a problem for what does not belong; returns the contents of what does, by relative path."""
    files: dict[str, bytes] = {}
    left = SUBMISSION_LIMIT
    top = frozenset((SUBMISSION, CONFIG, SAMPLES, SUMS, VERIFIED))
    for folder, known in (
        ("", top.__contains__),
        (RESULTS, RESULT_NAME.fullmatch),
        (EVIDENCE, EVIDENCE_NAME.fullmatch),
    ):
        where = directory / folder
        if folder == EVIDENCE and not os.path.lexists(where):  # old and open submissions may do without
            continue
        if where.is_symlink() or not where.is_dir():
            yield Problem(where, "expected a directory")
            continue
        items = sorted(islice(os.scandir(where), MOST_ENTRIES + 1), key=lambda item: item.name)
        if len(items) > MOST_ENTRIES:
            yield Problem(where, f"holds more than {MOST_ENTRIES} entries")
            continue
        for item in items:
            name = f"{folder}/{item.name}" if folder else item.name
            if name in (RESULTS, EVIDENCE):
                continue
            if not known(item.name):
                yield Problem(where / item.name, "does not belong into a submission")
                continue
            try:
                limit = min(left, LIMITS.get(folder or name, RECORD_LIMIT))
                files[name] = read_bytes(where / item.name, limit)
                left -= len(files[name])
            except UserError as error:
                yield Problem(where / item.name, str(error).removeprefix(f"{where / item.name}: "))
    return files


_SUM = re.compile(r"([0-9a-f]{64})  ([A-Za-z0-9._/-]{1,100})", re.ASCII)


def sums_problems(directory: Path, files: dict[str, bytes]) -> Iterator[Problem]:
    """What of a directory's sums is missing, malformed, of no file, or not that of its file."""
    path = directory / SUMS
    if SUMS not in files:
        yield Problem(directory, f"{SUMS} is missing")
        return
    listed: dict[str, str] = {}
    for number, line in enumerate(files[SUMS].decode("ascii", "replace").splitlines(), start=1):
        match = _SUM.fullmatch(line)
        if match is None or match[2] in listed:
            yield Problem(path, f"line {number} is not a sum and a new path")
        else:
            listed[match[2]] = match[1]
    for name in sorted((files.keys() - {SUMS}) | listed.keys()):
        if name not in listed:
            yield Problem(path, f"does not list {name}")
        elif name not in files:
            yield Problem(path, f"lists {name[:100]}, which is not there")
        elif sha256(files[name]) != listed[name]:
            yield Problem(directory / name, f"its contents changed: {SUMS} lists another SHA-256")
