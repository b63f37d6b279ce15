"""Reading files that strangers wrote, and writing our own so that nobody ever sees half of one.

A submission is data: it is parsed, never unpickled, imported or instantiated. What a parser would forgive is
refused here: symbolic links, files larger than a stated cap, duplicate keys (two readers could take
different ones), numbers that are not finite, YAML aliases (a few lines of which can unfold to gigabytes).
Every refusal is a `UserError` of one line that begins with the file's name.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import stat
import tempfile
from pathlib import Path
from typing import Any, NoReturn

import yaml

from genbench.errors import UserError, printable

RECORD_LIMIT = 1 << 20
"""Bytes of the largest JSON or YAML file that is read (a real record has about ten thousand)."""

IMAGE_LIMIT = 8 << 20
"""Bytes of the largest image that is accepted."""

EVIDENCE_LIMIT = 4 << 20
"""Bytes of the largest file of evidence (digits' have 70 kB; one colour image of 1024 pixels takes 3 MB)."""


def read_bytes(path: Path, limit: int) -> bytes:
    """The contents of a regular file of at most `limit` bytes.

    Raises UserError where the file is missing, a symbolic link, not a regular file, or larger.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        if path.is_symlink():
            raise UserError(f"{path}: found a symbolic link, expected a regular file") from error
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise UserError(f"{path}: expected a regular file")
    with os.fdopen(descriptor, "rb") as file:
        contents = file.read(limit + 1)
    if len(contents) > limit:
        raise UserError(f"{path}: larger than the {limit:,} bytes allowed")
    return contents


def read_json(path: Path, limit: int = RECORD_LIMIT) -> Any:
    """A JSON file as plain Python values, read strictly (see the module's docstring)."""
    return parse_json(read_bytes(path, limit), path)


def parse_json(contents: bytes, path: Path) -> Any:
    """The contents of a JSON file as plain Python values; `path` is what a refusal names."""
    try:
        return json.loads(
            contents.decode("utf-8"),
            object_pairs_hook=_unique,
            parse_constant=_not_finite,
            parse_float=_finite,
        )
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: not an acceptable JSON file: {_line(error)}") from error


def read_yaml(path: Path, limit: int = RECORD_LIMIT) -> Any:
    """A YAML file of plain values (no tags, no aliases, no duplicate keys) as plain Python values."""
    contents = read_bytes(path, limit)
    try:
        return yaml.load(contents.decode("utf-8"), Loader=_PlainLoader)
    except (ValueError, yaml.YAMLError, RecursionError) as error:
        raise UserError(f"{path}: not an acceptable YAML file: {_line(error)}") from error


def sha256(contents: bytes) -> str:
    """SHA-256 as 64 hexadecimal digits."""
    return hashlib.sha256(contents).hexdigest()


def write_atomically(path: Path, contents: bytes) -> None:
    """Writes a file so that readers find the old contents or the new, whatever happens in between."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(contents)
            file.flush()
            os.fsync(descriptor)
            os.fchmod(descriptor, 0o644)  # mkstemp's 0600 would hide the file from the group
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"the key {key[:80]!r} stands twice in one object")
        found[key] = value
    return found


def _not_finite(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a finite number")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text[:40]} is not a finite number")
    return value


def _line(error: BaseException) -> str:
    """The error in one short line (a YAML error's spans several)."""
    if isinstance(error, RecursionError):
        return "nested too deeply"
    return printable(" ".join(str(error).split())[:300])


class _PlainLoader(yaml.SafeLoader):
    """PyYAML's safe loader, which makes plain values only, without aliases and duplicate keys."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.events.AliasEvent):
            raise yaml.YAMLError("aliases (*name) are not accepted")
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        found = super().construct_mapping(node, deep=deep)
        if len(found) < len(node.value):
            raise yaml.YAMLError(f"a key stands twice in the mapping at line {node.start_mark.line + 1}")
        return found
