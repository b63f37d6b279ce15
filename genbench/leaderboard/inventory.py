"""Which files a submission is made of: known names, no links, nothing larger than its kind, true sums."""

from __future__ import annotations

import os
import re
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from pathlib import Path

from genbench.errors import UserError
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
from genbench.leaderboard.untrusted import EVIDENCE_LIMIT, IMAGE_LIMIT, RECORD_LIMIT, read_bytes, sha256

LIMITS = {SAMPLES: IMAGE_LIMIT, EVIDENCE: EVIDENCE_LIMIT}
"""Bytes of the largest files, where they are no records."""


@dataclass(frozen=True)
class Problem:
    """One failure: the file or directory it is in, and one line that says what was found and expected."""

    path: Path
    message: str

    def __str__(self) -> str:
        text = f"{self.path}: {self.message}"  # names of strangers' files may hold a terminal's control codes
        return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text)


def contents(directory: Path) -> Generator[Problem, None, dict[str, bytes]]:
    """Yields a problem for what does not belong; returns the contents of what does, by relative path."""
    files: dict[str, bytes] = {}
    top = frozenset((SUBMISSION, CONFIG, SAMPLES, SUMS))
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
        for item in sorted(os.scandir(where), key=lambda item: item.name):
            name = f"{folder}/{item.name}" if folder else item.name
            if name in (RESULTS, EVIDENCE):
                continue
            if not known(item.name):
                yield Problem(where / item.name, "does not belong into a submission")
                continue
            try:
                files[name] = read_bytes(where / item.name, LIMITS.get(folder or name, RECORD_LIMIT))
            except UserError as error:
                yield Problem(where / item.name, str(error).removeprefix(f"{where / item.name}: "))
    return files


_SUM = re.compile(r"([0-9a-f]{64})  ([A-Za-z0-9._/-]{1,100})", re.ASCII)


def sums_problems(directory: Path, files: dict[str, bytes]) -> Iterator[Problem]:
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
