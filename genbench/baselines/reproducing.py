"""Baselines trained again from what was typed: do they give the recorded scores?

On a machine of the recorded kind (device, threads, torch) every score must come out bit for bit. Elsewhere
sums round differently, and training carries differences to other weights: a new value is then compared with
the recorded training seeds, whose mean m and deviation s over K seeds say where another one is expected,

    |v - m| <= t s sqrt(1 + 1 / K),    t the 99.5 % quantile of Student's law with K - 1 degrees

which a sound run fails once in a hundred. The recorded settings must still be those of the experiment.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from os import environ
from pathlib import Path

from genbench.baselines.shelf import RESULT, Baseline
from genbench.leaderboard.record import Metric, Result

CONFIDENCE = 0.99


@dataclass(frozen=True)
class Comparison:
    """A score, recorded and found again.

    expected: how far from `recorded` it may be; 0: the same bits; None: one seed on another machine says
    nothing of how far.
    """

    metric: str
    recorded: float
    found: float
    expected: float | None

    @property
    def holds(self) -> bool | None:
        """Is it the recorded score? None where that cannot be told."""
        return None if self.expected is None else abs(self.found - self.recorded) <= self.expected

    def __str__(self) -> str:
        if self.expected == 0:
            said = "the same" if self.holds else f"recorded {self.recorded!r}"
            return f"{self.metric} {self.found!r}: {said}"
        if self.expected is None:
            said = f"of one seed elsewhere {self.recorded:.4g}, which tells nothing"
            return f"{self.metric} {self.found:.4g}: {said}"
        said = "as recorded" if self.holds else "outside"
        return f"{self.metric} {self.found:.4g}: {said} {self.recorded:.4g} ± {self.expected:.2g}"


def again(baseline: Baseline, folder: Path) -> Result:
    """Trains, samples and scores the first seed again, with its number of threads, in `folder`."""
    recorded = baseline.first
    command = [sys.executable, "-m", "genbench", *recorded.command, f"run_dir={folder}", "logger=none"]
    threads = re.search(r"(\d+) threads", recorded.device.name)
    environment = {**environ, **({"OMP_NUM_THREADS": threads[1]} if threads else {})}
    subprocess.run(command, check=True, env=environment, stdout=sys.stderr)
    return Result.read(folder / RESULT)


def compare(baseline: Baseline, found: Result) -> list[Comparison]:
    """Every recorded metric beside the one found."""
    recorded, same = baseline.first, same_machine(baseline.first, found)
    values = {metric.name: metric.value for metric in found.metrics}
    comparisons = []
    for metric in recorded.metrics:
        seeds = [m.value for result in baseline.results for m in result.metrics if m.name == metric.name]
        centre, expected = (metric.value, 0.0) if same else _interval(seeds, metric)
        comparisons.append(Comparison(metric.name, centre, values.get(metric.name, float("nan")), expected))
    return comparisons


def same_machine(a: Result, b: Result) -> bool:
    """Are both of one kind of machine and one torch, where bits can be compared?"""
    return (a.device, a.versions.get("torch")) == (b.device, b.versions.get("torch"))


def _interval(values: Sequence[float], metric: Metric) -> tuple[float, float | None]:
    """Where another training seed's value is expected: the mean of those known, and how far from it."""
    from scipy.stats import t

    if len(values) < 2:
        return metric.value, None
    count, centre = len(values), sum(values) / len(values)
    deviation = sqrt(sum((value - centre) ** 2 for value in values) / (count - 1))
    return centre, float(t.ppf((1 + CONFIDENCE) / 2, count - 1)) * deviation * sqrt(1 + 1 / count)
