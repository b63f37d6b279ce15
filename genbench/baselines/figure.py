"""Quality against training time: a point a baseline, and the way there where it was scored on the way."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from genbench.baselines.page import Row
from genbench.baselines.shelf import LOG, Baseline
from genbench.harness.tracking.metrics_file import MetricsFile


def draw(members: Sequence[Baseline], path: Path) -> Path:
    """Writes the picture of one data set's baselines to `path`; both axes are logarithmic."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.0, 6.0), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    families = sorted({baseline.figures.family for baseline in members})
    for baseline in members:
        metric, colour = Row(baseline).distance, f"C{families.index(baseline.figures.family) % 10}"
        if metric is None:
            continue
        end = baseline.figures.device_seconds, metric.mean
        axes.errorbar(*end, yerr=metric.std or 0.0, fmt="o", color=colour, markersize=4, linewidth=1)
        axes.annotate(baseline.path.name, end, (4, 3), textcoords="offset points", fontsize=6)
        axes.plot(*_on_the_way(baseline, metric.name), color=colour, linewidth=0.7, alpha=0.5)
    for place, family in enumerate(families):
        axes.plot([], [], "o", color=f"C{place % 10}", markersize=4, label=family)
    axes.set(xscale="log", yscale="log", xlabel="seconds of training", ylabel="Fréchet distance")
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")
    figure.savefig(path, dpi=110, metadata={"Software": None})
    return path


def _on_the_way(baseline: Baseline, name: str) -> tuple[list[float], list[float]]:
    """Seconds and scores of the first seed's log; a score there may be of fewer samples than the record's."""
    seconds, seen, values = 0.0, [], []
    wanted = f"eval/{name.partition('@')[0]}"
    for _, row in MetricsFile(baseline.seed_folder(baseline.first) / LOG).rows():
        seconds = row.get("train_seconds", seconds)
        scores = [value for key, value in row.items() if key.partition("@")[0] == wanted]
        seen += [seconds] * len(scores)
        values += scores
    return seen, values
