"""What is written: ratios of what was paired, fractions of what was measured, and who is missing."""

from __future__ import annotations

import pytest

from genbench.speed.ceilings import Ceilings
from genbench.speed.report import fractions, roofline, table
from genbench.speed.turns import Row

CEILINGS = Ceilings(copy=10e9, product={"fp32": 100e9, "bf16": 400e9})


def row(name: str, median: float, ratio: float | None = None, unit: str = "step", **facts) -> Row:
    spread = lambda value: {"median": value, "p20": 0.9 * value, "p80": 1.1 * value}
    return Row("steps", "DDIM", name, unit, spread(median), None if ratio is None else spread(ratio), facts)


def test_fractions_are_of_the_ceiling_they_belong_to():
    assert fractions(row("a", 0.5, bytes=1e9), CEILINGS) == {"copy": pytest.approx(0.2)}
    assert fractions(row("a", 0.5, flops=1e11, precision="bf16"), CEILINGS) == {"product": pytest.approx(0.5)}
    # Arithmetic that is no matrix product is not held against that rate.
    assert fractions(row("a", 0.5, flops=1e11), CEILINGS) == {}


def test_the_table_says_each_thing_once_and_names_who_is_missing():
    rows = [
        row("genbench", 2e-3, bytes=1e7, peak_bytes=3 * 2**20),
        row("theirs", 6e-3, 3.0),
        row("whole", 0.5, unit="image"),
    ]
    lines = table(rows, CEILINGS, "On a machine.", ["diffusers is not at hand"]).splitlines()
    assert lines[0] == "On a machine."
    assert lines[4] == "| steps: DDIM | genbench | 2 (1.8 to 2.2) ms |  |  | 50% of copy | 3 MiB |"
    assert lines[5] == "|  | theirs | 6 (5.4 to 6.6) ms | 3 (2.7 to 3.3) |  |  |  |"
    assert lines[6] == "|  | whole | 500 (450 to 550) ms |  | 2 images |  |  |"
    assert lines[-1] == "* diffusers is not at hand"
    assert all(line.count("|") == 8 for line in lines[2:7])


def test_a_roofline_is_drawn(tmp_path):
    rows = [
        row("a", 0.5, bytes=1e9, flops=1e9),
        row("b", 0.5, traffic=1e9, flops=1e11, precision="fp32"),
        row("c", 1),
    ]
    picture = roofline(rows, CEILINGS, "On a machine", tmp_path / "speed.png")
    assert picture.read_bytes().startswith(b"\x89PNG")
