"""Quality against training time: a point a baseline, and the way there where it was scored on the way."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product
from math import cos, pi, sin
from pathlib import Path
from typing import TYPE_CHECKING

from genbench.baselines.page import Row
from genbench.baselines.shelf import LOG, Baseline
from genbench.harness.tracking.metrics_file import MetricsFile

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.backend_bases import RendererBase


def draw(members: Sequence[Baseline], path: Path) -> Path:
    """Writes the picture of one data set's baselines to `path`; both axes are logarithmic."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.0, 6.0), layout="constrained")
    canvas = FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    ends: dict[str, tuple[float, float]] = {}
    families = sorted({baseline.figures.family for baseline in members})
    for baseline in members:
        metric, colour = Row(baseline).distance, f"C{families.index(baseline.figures.family) % 10}"
        if metric is None:
            continue
        end = baseline.figures.device_seconds, metric.mean
        axes.errorbar(*end, yerr=metric.std or 0.0, fmt="o", color=colour, markersize=4, linewidth=1)
        ends[baseline.path.name] = end
        axes.plot(*_on_the_way(baseline, metric.name), color=colour, linewidth=0.7, alpha=0.5)
    for place, family in enumerate(families):
        axes.plot([], [], "o", color=f"C{place % 10}", markersize=4, label=family)
    axes.set(xscale="log", yscale="log", xlabel="seconds of training", ylabel="Fréchet distance")
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")
    figure.draw_without_rendering()  # where things are is known only then
    _name(axes, canvas.get_renderer(), ends)
    figure.savefig(path, dpi=110, metadata={"Software": None})
    return path


def _name(axes: Axes, renderer: RendererBase, ends: Mapping[str, tuple[float, float]]) -> None:
    """Names points, each as near as it goes without covering points or names; lines lead to far ones."""
    from matplotlib.text import Text
    from matplotlib.transforms import Bbox

    places = [axes.transData.transform(end) for end in ends.values()]
    taken = [Bbox.from_bounds(x - 4, y - 4, 8, 8) for x, y in places]
    line = {"arrowstyle": "-", "linewidth": 0.3, "color": "grey", "shrinkA": 0, "shrinkB": 2}
    for name, end in ends.items():
        label = axes.annotate(
            name, end, (0, 0), textcoords="offset points", fontsize=6, va="center", arrowprops=line
        )
        label.set_in_layout(False)
        for radius, turn in product((6, 10, 16, 24, 32, 44, 60), range(16)):
            across, up = cos(turn * pi / 8), sin(turn * pi / 8)
            label.set(position=(radius * across, radius * up), ha="left" if across > -0.1 else "right")
            label.update_positions(renderer)
            box = Text.get_window_extent(label)  # the name's own, without its line
            if axes.bbox.containsx(box.x1) and not any(box.overlaps(other) for other in taken):
                break
        taken.append(box)


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
