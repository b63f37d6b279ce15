"""The command that would train a row again, fit to be copied into a shell, or none.

A reader pastes it and presses return, so it is made of overrides that can only choose and set: what was typed
for each training seed, in plain characters, with no key that names code (`_target_`), Hydra's own settings,
a configuration file of another place than conf/ (to which `..` leads, and which `@` lays over everything), or
places of the submitter's machine. Of a command with anything else, nothing is offered; it can be read in
results/. That a recorded command leads to the recorded configuration is the submitter's word: a run prints
its group hash to compare.
"""

from __future__ import annotations

import re
import shlex

from genbench.leaderboard.standings import Row
from genbench.leaderboard.submitting import determines

_PLAIN = re.compile(r"(?:[A-Za-z]\w*(?:[./]\w+)*|\+{1,2}[A-Za-z]\w*(?:\.\w+)+)=[\w.,:+/\[\]{}-]*", re.ASCII)
"""`+` adds a value to a section, and never a group: conf/ has all groups of a run already."""

_ELSEWHERE = re.compile(r"\.\.|(?:^|[\[,:])/")
"""In a value: a path that climbs, or begins at the root."""


def command(row: Row) -> str | None:
    """Lines for a shell that check out the row's commit and train all its seeds; None where none is safe."""
    recipes = {_without_seed(overrides) for overrides in row.commands}
    if len(recipes) != 1:
        return None
    (recipe,) = recipes
    if not all(safe(override) for override in recipe):
        return None
    seeds = row.figures.training_seeds
    several = ["-m"] if len(seeds) > 1 else []
    words = ["python", "-m", "genbench", *several, *recipe, f"seed={','.join(map(str, seeds))}"]
    lines = [f"git checkout {row.commits[0]}"] if len(row.commits) == 1 else []
    return "\n".join([*lines, shlex.join(words)])


def _without_seed(overrides: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(override for override in overrides if override.partition("=")[0] != "seed")


def safe(override: str) -> bool:
    """Whether an override can only choose and set what determines a result, in plain characters."""
    key, _, value = override.partition("=")
    return (
        _PLAIN.fullmatch(override) is not None
        and _ELSEWHERE.search(value) is None
        and "_target_" not in override
        and "hydra" not in key
        and determines(override)
    )
