"""Which way a metric is better, told by its name."""

from __future__ import annotations

import re

_LOWER = re.compile(
    r"(s?fid|fid_infinity|cmmd|nll|bits_per_dim|(s?fd|kid|class_fd|modes_tv|modes_missing)(_.*)?)",
    re.IGNORECASE,
)
_HIGHER = re.compile(r"((is|precision|recall|density|coverage|class_accuracy)(_.*)?)", re.IGNORECASE)


def direction_of(name: str) -> str | None:
    """Which way a metric is better, by its name: "min", "max", or None where there is no telling.

    "preview/fid@2000" and "fd_digits" are better lower, "is_digits" and "recall" higher.
    """
    metric = name.split("/")[-1].split("@")[0]
    return "min" if _LOWER.fullmatch(metric) else "max" if _HIGHER.fullmatch(metric) else None
