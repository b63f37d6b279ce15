"""Names of the precisions in which networks are evaluated, and what `auto` among them is settled to.

`auto` leaves the choice to the device of a run, which writes what it took into its configuration before it
starts. Torch is not imported here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

AUTO = "auto"
"""The precision that is fast on the device at hand."""

PRECISIONS = {"fp32": None, "bf16": "bfloat16"}
"""Names of precisions, and torch's name of the type that networks are autocast to."""

PRECISE = ("trainer", "sampler")
"""Sections of a configuration that have a precision."""

BEFORE = "fp32"
"""The precision of runs that are older than the setting."""


def settled(config: Mapping[str, Any], taken: Callable[[str], str]) -> dict[str, Any]:
    """`config` in which every precision of `auto` is what is `taken` of it in that section."""
    result = dict(config)
    for section in PRECISE:
        precision = config[section].get("precision", BEFORE)
        result[section] = {**config[section], "precision": taken(section) if precision == AUTO else precision}
    return result


def settled_as(config: Mapping[str, Any], recorded: Mapping[str, Any]) -> dict[str, Any]:
    """`config` in which every precision of `auto` is the one that the device of a recorded run took."""
    return settled(config, lambda section: recorded.get(section, {}).get("precision", BEFORE))
