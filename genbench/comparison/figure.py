"""The comparison as a picture: losses and scores over images seen, and the sample grids side by side."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from genbench.comparison.contender import SCORES, Contender, names

STYLES = ("-", "--", ":", "-.")
"""Lines of the phases of one run, which share its colour."""


def draw(contenders: Sequence[Contender], path: Path) -> Path:
    """Writes the picture to `path`, making its folder; returns the path."""
    # Without pyplot, which would want a display and keeps every figure.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import EngFormatter

    columns = max(2, len(contenders))
    figure = Figure(figsize=(3.6 * columns, 6.8), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.add_gridspec(2, 2 * columns)
    titles, colours = names(contenders), [f"C{k % 10}" for k in range(len(contenders))]
    loss, score = figure.add_subplot(grid[0, :columns]), figure.add_subplot(grid[0, columns:])
    for contender, title, colour in zip(contenders, titles, colours, strict=True):
        losses(loss, contender, title, colour)
        _scores(score, contender, title, colour)
    for axes, name in ((loss, "loss"), (score, "score")):
        axes.set(title=name, xlabel="training images seen")
        axes.grid(alpha=0.3)
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
        if axes.lines:
            axes.legend(fontsize="small")
        else:
            axes.set(xticks=[], yticks=[])
            axes.text(0.5, 0.5, "none logged", ha="center", transform=axes.transAxes)
    for place, (contender, title) in enumerate(zip(contenders, titles, strict=True)):
        axes = figure.add_subplot(grid[1, 2 * place : 2 * place + 2])
        axes.set_title(title, fontsize="small")
        axes.axis("off")
        if contender.grid is None:
            axes.text(0.5, 0.5, "no samples yet", ha="center")
        else:
            with Image.open(contender.grid) as picture:
                axes.imshow(np.asarray(picture.convert("RGB")), interpolation="nearest")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
    return path


def losses(axes: Any, contender: Contender, title: str, colour: str) -> None:
    """Draws the losses of a run's phases over training images seen."""
    phases = [name for name in contender.logged() if name.endswith("/loss")]
    for style, phase in zip(cycle(STYLES), phases, strict=False):
        label = title if len(phases) == 1 else f"{title}: {phase.removesuffix('/loss')}"
        images, values = contender.curve(phase)
        # A line of one point is not seen.
        marker = "o" if len(images) == 1 else ""
        axes.plot(images, values, style, color=colour, label=label, linewidth=1, marker=marker, markersize=4)


def _scores(axes: Any, contender: Contender, title: str, colour: str) -> None:
    """The first score of the run on the way, and at its end."""
    logged = [name for name in contender.logged() if name.startswith(SCORES)]
    bases = list(dict.fromkeys(name.partition("@")[0] for name in logged))
    for name in (name for name in logged if name.partition("@")[0] == bases[0]):
        label = f"{title}: {name.removeprefix(SCORES)}"
        axes.plot(*contender.curve(name), "o-", color=colour, label=label, linewidth=1, markersize=4)
