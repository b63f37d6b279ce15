"""Folders of configuration of one's own, `hydra.searchpath=[file://myconf]`: where they are for a later run.

What was typed is relative to where it was typed; a run is evaluated from anywhere.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException

from genbench.errors import UserError
from genbench.words import key_of, quoted

KEY = "hydra.searchpath"
SCHEME = "file://"


def anchored(overrides: Iterable[str]) -> list[str]:
    """`overrides` with the folders of a search path in full."""
    return [_anchored(override) for override in overrides]


def _anchored(override: str) -> str:
    if key_of(override) != KEY:
        return override
    entries = [
        entry if (folder := _folder(entry)) is None else f"{SCHEME}{folder.absolute()}"
        for entry in _entries(override)
    ]
    return f"{KEY}=[{','.join(map(quoted, entries))}]"


def check(overrides: Sequence[str]) -> None:
    """Raises UserError for a folder of a search path that is not there, which Hydra would only warn of."""
    for override in overrides:
        if key_of(override) != KEY:
            continue
        for entry in _entries(override):
            folder = _folder(entry)
            if folder is not None and not folder.is_dir():
                raise UserError(
                    f"{KEY} names {entry}, and {folder.absolute()} is no folder. Where is the configuration "
                    f"that this run was typed with? Type '{KEY}=[{SCHEME}DIR]'."
                )


def folders(overrides: Iterable[str]) -> list[Path]:
    """Those that `overrides` add to the search path."""
    named = (
        _folder(entry) for override in overrides if key_of(override) == KEY for entry in _entries(override)
    )
    return [folder for folder in named if folder is not None]


def _entries(override: str) -> Iterator[str]:
    """The places of an override; none where Hydra cannot read it, which it will say itself."""
    try:
        value = OverridesParser.create().parse_override(override).value()
    except HydraException:
        return
    yield from map(str, value if isinstance(value, list) else ())


def _folder(entry: str) -> Path | None:
    """The folder of an entry; None for places of another kind, `pkg://...`, and for what Hydra fills in."""
    path = entry.removeprefix(SCHEME)
    return None if "://" in path or "${" in path else Path(path)
