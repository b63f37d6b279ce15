"""task=list: what can be chosen, a line each, of all groups or of some: genbench list model sampler."""

from __future__ import annotations

from typing import Any

from genbench.cli import Typed
from genbench.configuration import conf_dir
from genbench.errors import UserError
from genbench.help import HIDDEN, choices, described


def run(config: dict[str, Any], typed: Typed) -> None:
    """Prints the groups `groups`, or all that a user chooses from."""
    folder = conf_dir()
    known = choices(folder)
    if unknown := [name for name in config["groups"] if name not in known]:
        raise UserError(f"groups names {', '.join(unknown)}; the groups are {', '.join(known)}.")
    for name in config["groups"] or [name for name in known if name not in HIDDEN]:
        lines = described(folder, name)
        width = max(26, *map(len, lines))
        print("\n".join([f"{name}=", *(f"  {choice:<{width}} {line}" for choice, line in lines.items())]))
