"""A comparison of samplers as a table and as a plot."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from genbench.solvers.judges import Verdict

Name = tuple[str, str, float]


@dataclass(frozen=True)
class Effort:
    """What is varied of a sampler: a key of its settings, others that follow it, whether more is more."""

    key: str
    followers: Sequence[str] = ()
    rising: bool = True


@dataclass(frozen=True)
class Point:
    """One sampler with one setting. sampler: as typed; effort, amount: what was varied, and its value."""

    sampler: str
    effort: Effort
    amount: float
    verdict: Verdict

    @property
    def name(self) -> Name:
        """What tells it from other points of a report."""
        return self.sampler, self.effort.key, self.amount

    @classmethod
    def read(cls, written: Mapping[str, Any]) -> Point:
        """The point that `dataclasses.asdict` wrote."""
        effort = Effort(**{**written["effort"], "followers": tuple(written["effort"]["followers"])})
        return cls(written["sampler"], effort, written["amount"], Verdict(**written["verdict"]))

    def __str__(self) -> str:
        verdict = self.verdict
        return (
            f"{self.sampler:<40} {self.effort.key}={self.amount:<6g} {verdict.nfe_mean:>8.6g} evaluations  "
            f"{verdict.measure} {verdict.value:.4g}"
        )


def table(points: Sequence[Point]) -> str:
    """Markdown: a row for each sampler, a column for each amount, measure and evaluations in the cells."""
    parts = []
    for effort in dict.fromkeys(point.effort for point in points):
        members = [point for point in points if point.effort == effort]
        amounts = sorted({point.amount for point in members}, reverse=not effort.rising)
        cells = {(point.sampler, point.amount): point.verdict for point in members}
        lines = [
            f"`{members[0].verdict.measure}` (evaluations) by `sampler.{effort.key}`:",
            "",
            f"| | {' | '.join(f'{amount:g}' for amount in amounts)} |",
            f"|---|{'---|' * len(amounts)}",
        ]
        for sampler in dict.fromkeys(point.sampler for point in members):
            row = [_cell(cells.get((sampler, amount))) for amount in amounts]
            lines.append(f"| `{sampler}` | {' | '.join(row)} |")
        parts.append("\n".join(lines))
    first = points[0].verdict
    if first.floor is not None:
        parts.append(f"{first.floor_of.capitalize()} get {first.floor:.3g}.")
    return "\n\n".join(parts) + "\n"


def _cell(verdict: Verdict | None) -> str:
    return "" if verdict is None else f"{verdict.value:.3g} ({verdict.nfe_mean:.4g})"


def plot(points: Sequence[Point], title: str, path: Path) -> Path:
    """The measure against evaluations, both on logarithmic axes, one line a sampler; a PNG."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(8.5, 5.2), layout="constrained")
    colours = pyplot.get_cmap("tab20").colors  # type: ignore[attr-defined]
    for number, sampler in enumerate(dict.fromkeys(point.sampler for point in points)):
        line = sorted((p.verdict.nfe_mean, p.verdict.value) for p in points if p.sampler == sampler)
        axes.plot(
            *zip(*line, strict=True),
            marker="osD^v<>Xph*P"[number % 12],
            color=colours[number % 20],
            label=sampler,
            markersize=5,
            linewidth=1.4,
        )
    first = points[0].verdict
    if first.floor is not None:
        axes.axhline(first.floor, color="gray", linestyle="--", linewidth=1, label=first.floor_of)
    axes.set(xscale="log", yscale="log", xlabel="network evaluations an image", ylabel=first.measure)
    axes.set_title(title)
    axes.grid(visible=True, which="both", alpha=0.2)
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=8, frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
    pyplot.close(figure)
    return path
