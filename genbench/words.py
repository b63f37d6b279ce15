"""Short ways to type a task: `genbench compare a b` for `genbench task=compare runs=[a,b]`."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import takewhile

from genbench.errors import UserError

ABOUT: Mapping[str, str] = {
    "compare": "runs",
    "evaluate": "run_dir",
    "list": "groups",
    "sample": "run_dir",
    "score": "images",
    "solvers": "run_dir",
    "walk": "run_dir",
}
"""The setting that says what a task is about, whose name may be left out."""

PLAIN = re.compile(r"(?![-+.\d])[\w./~-]*[./][\w./~-]*|\.{1,2}/[\w./~-]*")
"""Paths of letters, digits and a little more, with a dot or a slash: no number, nor true, false or null."""

SEVERAL = frozenset({"runs", "groups"})
"""Those that take a list."""


def spelled_out(arguments: Sequence[str], tasks: Sequence[str]) -> list[str]:
    """The arguments with a task's name, and the words right behind it, spelt out.

    Settings may come before it, and are overridden by what comes after. Everything is left as it is where
    what comes first besides them is no task.
    Raises UserError for words that the task has no use for.
    """
    settings = list(takewhile(lambda word: "=" in word and not word.startswith("-"), arguments))
    if len(settings) == len(arguments) or arguments[len(settings)] not in tasks:
        return list(arguments)
    task, rest = arguments[len(settings)], list(arguments[len(settings) + 1 :])
    words = list(takewhile(lambda word: "=" not in word and not word.startswith("-"), rest))
    rest = rest[len(words) :]
    if not words:
        return [*settings, f"task={task}", *rest]
    setting = ABOUT.get(task)
    if setting is None or (len(words) > 1 and setting not in SEVERAL):
        most = "nothing" if setting is None else "one word"
        raise UserError(f"{task} takes {most} without a name, found {' '.join(words)}. Type NAME=VALUE.")
    listed = setting in SEVERAL
    value = f"[{','.join(map(quoted, words))}]" if listed else _plainly(words[0])
    return [*settings, f"task={task}", f"{setting}={value}", *rest]


def key_of(override: str) -> str:
    """The key an override sets: "sampler.steps" of "+sampler.steps=5", "sampler" of "sampler=ddim"."""
    return override.split("=", 1)[0].lstrip("+~").split("@", 1)[0]


def unquoted(value: str) -> str:
    """What `quoted` was given; any other value as it is."""
    if len(value) < 2 or not value[0] == value[-1] == "'":
        return value
    return value[1:-1].replace("\\'", "'").replace("\\\\", "\\")


def quoted(word: str) -> str:
    """A word as Hydra reads it unchanged, whatever is in it."""
    escaped = word.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


def _plainly(word: str) -> str:
    """A word quoted only where Hydra would read something else than the word."""
    return word if PLAIN.fullmatch(word) else quoted(word)
