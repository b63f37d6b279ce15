"""Names in the picture of quality against training time can be read."""

from __future__ import annotations

from itertools import combinations

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text

from genbench.baselines.figure import _name


def test_names_of_crowded_points_cover_neither_points_nor_each_other():
    figure = Figure(figsize=(9.0, 6.0))
    renderer = FigureCanvasAgg(figure).get_renderer()
    axes = figure.add_subplot()
    axes.set(xlim=(0, 10), ylim=(0, 10))
    ends = {f"experiment-{k}": (9.0 + 0.05 * (k % 4), 5.0 + 0.1 * (k // 4)) for k in range(16)}
    figure.draw_without_rendering()
    _name(axes, renderer, ends)
    boxes = [Text.get_window_extent(label, renderer) for label in axes.texts]
    assert [label.get_text() for label in axes.texts] == list(ends)
    assert not any(a.overlaps(b) for a, b in combinations(boxes, 2))
    points = axes.transData.transform(list(ends.values()))
    assert not any(box.contains(*point) for box in boxes for point in points)
    assert all(box.x1 <= axes.bbox.x1 for box in boxes), "none is cut off by the edge"
