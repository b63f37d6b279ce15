"""Numbers as people read them, the same on both pages: figures with their spread, counts, times."""

from __future__ import annotations

from genbench.leaderboard.submission import MetricFigures


def figure(metric: MetricFigures | None) -> str:
    """Mean ± spread over training seeds: the spread to two significant digits, the mean to the same place."""
    if metric is None:
        return ""
    if metric.std is None:
        return number(metric.mean)
    if metric.std == 0:
        return f"{number(metric.mean)} ± 0"
    decimals = min(8, max(0, 1 - _exponent(metric.std, 2)))
    return f"{metric.mean:.{decimals}f} ± {metric.std:.{decimals}f}"


def own_spread(metric: MetricFigures | None) -> str | None:
    """What one model's scores vary by: over evaluation seeds, else by bootstrap; None where unknown."""
    if metric is None:
        return None
    if metric.evaluation_std is not None:
        return f"± {number(metric.evaluation_std)}"
    return None if metric.bootstrap_std is None else f"± {number(metric.bootstrap_std)} by bootstrap"


def number(value: float, digits: int = 4) -> str:
    """A number with so many significant digits: 3.170, 31.24, 1000."""
    exponent = _exponent(value, digits)
    if -5 <= exponent <= 6:
        return f"{value:.{max(0, digits - 1 - exponent)}f}"
    return f"{value:.{digits - 1}e}"


def _exponent(value: float, digits: int) -> int:
    """The power of ten that leads `value` once it is rounded to so many digits (no logarithm: exact)."""
    return int(f"{value:.{digits - 1}e}".partition("e")[2])


def amount(count: float) -> str:
    """A count with three significant digits and a unit: 950, 35.7 k, 1.20 M, 3.00 G."""
    for unit, size in ((" G", 1e9), (" M", 1e6), (" k", 1e3)):
        if count >= size:
            return number(count / size, 3) + unit
    return f"{count:.0f}"


def duration(length: float) -> str:
    """Seconds for people: 42 s, 3.5 min, 2.1 h, 4.0 d."""
    for unit, size in ((" d", 86400.0), (" h", 3600.0), (" min", 60.0)):
        if length >= size:
            return f"{length / size:.1f}{unit}"
    return f"{length:.0f} s"


def seconds(length: float) -> str:
    """Seconds an image with two significant digits: 1.2 s, 35 ms, 4.1 µs."""
    for unit, size in ((" s", 1.0), (" ms", 1e-3), (" µs", 1e-6)):
        if length >= size:
            return number(length / size, 2) + unit
    return f"{length:.2g} s"
