"""Settings that differ between runs, and would give another result."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from genbench.configuration import determining

ABSENT = "(absent)"
TARGET = "_target_"

Line = tuple[str, list[str]]
"""What a line is about, and a cell for every run."""


def differing(configs: Sequence[Mapping[str, Any]]) -> list[Line]:
    """The settings that configurations do not agree on, and what each of them says.

    Objects of different classes are one line, which names them: their arguments have nothing in common.
    """
    return list(_differing([determining(config) for config in configs], ""))


def _differing(values: Sequence[Any], name: str) -> Iterator[Line]:
    if all(value == values[0] for value in values):
        return
    if all(isinstance(value, Mapping) for value in values) and len({v.get(TARGET) for v in values}) == 1:
        for key in dict.fromkeys(key for value in values for key in value):
            inner = [value.get(key, ABSENT) for value in values]
            yield from _differing(inner, f"{name}.{key}" if name else key)
    else:
        yield name, [_shown(value) for value in values]


def _shown(value: Any) -> str:
    """A value in a cell; an object by its name, or that of its class."""
    if isinstance(value, str):
        return value.rpartition(".")[2] if value.startswith("genbench.") else value
    if isinstance(value, Mapping):
        return str(
            value.get("name") or value.get(TARGET, "").rpartition(".")[2] or ", ".join(value) or "none"
        )
    if isinstance(value, list):
        return f"[{', '.join(map(_shown, value))}]"
    return json.dumps(value, sort_keys=True)
