"""A configuration as YAML: the text of `yaml.safe_dump`, byte for byte, at twenty times the speed.

PyYAML resolves, analyses and emits every scalar through a dozen calls, two milliseconds a configuration; a
check of ten thousand submissions spent half its time there. What a configuration is made of (mappings with
string keys, lists, scalars) needs one walk: a mapping in a mapping is indented, a list in a mapping is not.
How a scalar is written, quotes and all, is asked of PyYAML itself and remembered. Whatever a line could be
folded for, or whose layout has rules of its own (a long or many-lined scalar, an unusual key), is left to it.

libyaml's emitter, which some builds of PyYAML have, is no way around this: four times slower, it writes an
empty key, or a long quoted one, otherwise than PyYAML, and the bytes of config.yaml are compared on machines
with either.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import yaml

WIDTH = 100
"""Columns after which PyYAML folds a line."""

_SHORT = 40
"""Scalars and keys up to this length, in a tree of up to `_DEEP` levels, never reach `WIDTH`. Longer ones
without blanks and quotes have no place to be folded at."""

_DEEP = 8


_KEY = re.compile(r"[A-Za-z0-9_@./-]{1,40}", re.ASCII)
"""Keys that stand on one line however they are quoted."""


class _Unusual(Exception):
    """Something that is left to PyYAML."""


def dump(value: dict[str, Any]) -> str:
    """`value` (plain Python values) as `yaml.safe_dump` writes it in block style, keys sorted, in ASCII."""
    try:
        if not value:
            raise _Unusual
        return "".join(_mapping(value, "", 0))
    except _Unusual:
        return yaml.safe_dump(
            value, sort_keys=True, default_flow_style=False, allow_unicode=False, width=WIDTH
        )


def _mapping(value: dict[str, Any], indent: str, depth: int) -> Iterator[str]:
    """The lines of a mapping that is not empty, the first without its indent."""
    first = True
    for key in sorted(value):
        if type(key) is not str or not _KEY.fullmatch(key):
            raise _Unusual
        yield f"{'' if first else indent}{_scalar('str', key)}:"
        yield from _value(value[key], indent, depth, "")
        first = False


def _value(value: Any, indent: str, depth: int, list_indent: str) -> Iterator[str]:
    """What follows a key."""
    if depth > _DEEP:
        raise _Unusual
    if isinstance(value, dict) and value:
        yield f"\n{indent}  "
        yield from _mapping(value, f"{indent}  ", depth + 1)
    elif isinstance(value, list) and value:
        yield f"\n{indent}"
        yield from _list(value, indent, depth + 1)
    else:
        yield f" {_leaf(value)}\n"


def _list(value: list[Any], indent: str, depth: int) -> Iterator[str]:
    """The lines of a list that is not empty, the first without its indent."""
    first = True
    for inner in value:
        yield f"{'' if first else indent}- "
        if depth > _DEEP:
            raise _Unusual
        if isinstance(inner, dict) and inner:
            yield from _mapping(inner, f"{indent}  ", depth + 1)
        elif isinstance(inner, list) and inner:
            yield from _list(inner, f"{indent}  ", depth + 1)
        else:
            yield f"{_leaf(inner)}\n"
        first = False


def _leaf(value: Any) -> str:
    if isinstance(value, dict | list):
        return "{}" if isinstance(value, dict) else "[]"
    return _scalar(type(value).__name__, value)


@lru_cache(maxsize=1 << 16)
def _scalar(kind: str, value: Any) -> str:
    """A scalar in PyYAML's words; its type is part of what is remembered, for 1, 1.0 and true are equal."""
    text = yaml.safe_dump(value, allow_unicode=False, width=WIDTH).removesuffix("\n").removesuffix("\n...")
    foldable = " " in text or text.startswith(("'", '"'))
    if "\n" in text or (foldable and len(text) > _SHORT):
        raise _Unusual
    return text
