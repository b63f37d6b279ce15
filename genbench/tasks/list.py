"""task=list: what can be chosen, a line each, of all groups or of some: genbench list model sampler."""

from __future__ import annotations

from typing import Any

from genbench import searchpath
from genbench.cli import Typed
from genbench.configuration import conf_dir
from genbench.errors import UserError
from genbench.help import HIDDEN, choices, described
from genbench.misspelt import meant


def run(config: dict[str, Any], typed: Typed) -> None:
    """Prints the groups `groups`, or all that a user chooses from; with what a search path adds to them."""
    folders = {folder: choices(folder) for folder in (conf_dir(), *searchpath.folders(typed.overrides))}
    known = sorted({name for groups in folders.values() for name in groups})
    unknown = next((name for name in config["groups"] if name not in known), None)
    if unknown is not None:
        question = meant(unknown, known)
        raise UserError(f"list {unknown}: there is no such group.{question} Groups: {', '.join(known)}.")
    for name in config["groups"] or [name for name in known if name not in HIDDEN]:
        lines: dict[str, str] = {}
        for folder in (folder for folder, groups in folders.items() if name in groups):
            lines = described(folder, name) | lines  # Hydra takes the first of one name
        width = max(26, *map(len, lines))
        print("\n".join([f"{name}=", *(f"  {choice:<{width}} {line}" for choice, line in lines.items())]))
