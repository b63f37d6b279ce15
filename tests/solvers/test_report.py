"""A comparison as a table and a plot."""

from __future__ import annotations

from PIL import Image

from genbench.solvers.judges import Verdict
from genbench.solvers.report import Point, plot, table

POINTS = [
    Point("heun", "sampler.steps", 5.0, Verdict("W1", 0.25, 9.0, 9, 0.1)),
    Point("heun", "sampler.steps", 10.0, Verdict("W1", 0.0625, 19.0, 19, 0.1)),
    Point("ddim", "sampler.steps", 10.0, Verdict("W1", 0.5, 10.0, 10, 0.1)),
    Point("rk45", "sampler.rtol", 0.1, Verdict("W1", 0.125, 20.25, 32, 0.1)),
    Point("rk45", "sampler.rtol", 0.01, Verdict("W1", 0.1, 40.0, 50, 0.1)),
]


def test_every_sampler_has_a_row_and_every_effort_a_column():
    lines = table(POINTS, 0.005).splitlines()
    assert "| | 5 | 10 |" in lines
    assert "| `heun` | 0.25 (9) | 0.0625 (19) |" in lines
    assert "| `ddim` |  | 0.5 (10) |" in lines
    assert "| | 0.1 | 0.01 |" in lines  # the least effort first
    assert "| `rk45` | 0.125 (20.25) | 0.1 (40) |" in lines
    assert lines[-1] == "Perfect samples get about 0.005."


def test_a_floor_that_is_not_known_is_not_mentioned():
    assert "Perfect" not in table(POINTS, None)


def test_the_plot_is_a_picture(tmp_path):
    assert Image.open(plot(POINTS, 0.005, "a title", tmp_path / "new" / "solvers.png")).width > 600
