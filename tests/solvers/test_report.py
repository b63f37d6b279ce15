"""A comparison as a table and a plot."""

from __future__ import annotations

from dataclasses import replace

from PIL import Image

from genbench.solvers.judges import Verdict
from genbench.solvers.report import Effort, Point, plot, table

STEPS, TOLERANCE = Effort("steps"), Effort("rtol", ("atol",), rising=False)


def verdict(value: float, nfe: float) -> Verdict:
    return Verdict("sliced_w1", value, nfe, round(nfe), 0.1, 0.005, "as many exact draws")


POINTS = [
    Point("heun", STEPS, 5.0, verdict(0.25, 9)),
    Point("heun", STEPS, 10.0, verdict(0.0625, 19)),
    Point("ddim", STEPS, 10.0, verdict(0.5, 10)),
    Point("rk45", TOLERANCE, 0.01, verdict(0.1, 40)),
    Point("rk45", TOLERANCE, 0.1, verdict(0.125, 20.25)),
]


def test_every_sampler_has_a_row_and_every_amount_a_column():
    lines = table(POINTS).splitlines()
    assert "| | 5 | 10 |" in lines
    assert "| `heun` | 0.25 (9) | 0.0625 (19) |" in lines
    assert "| `ddim` |  | 0.5 (10) |" in lines
    assert "| | 0.1 | 0.01 |" in lines  # the least effort first
    assert "| `rk45` | 0.125 (20.25) | 0.1 (40) |" in lines
    assert lines[-1] == "As many exact draws get 0.005."


def test_a_floor_that_is_not_known_is_not_mentioned():
    points = [replace(point, verdict=replace(point.verdict, floor=None)) for point in POINTS]
    assert "draws" not in table(points)


def test_the_plot_is_a_picture_with_something_on_it(tmp_path):
    picture = Image.open(plot(POINTS, "a title", tmp_path / "new" / "solvers.png"))
    assert len(picture.convert("RGB").getcolors(maxcolors=1_000_000)) > 20
