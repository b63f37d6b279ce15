"""Sub-sequences of DDIM's code."""

from __future__ import annotations

import pytest
import torch

from genbench.contracts import UserError
from genbench.samplers.grids import Quadratic, Uniform


def indices(grid, steps: int, total: int = 1000) -> list[int]:
    times = grid(steps, total)
    assert float(times[-1]) == 0
    return [round(float(t) * total) - 1 for t in times[:-1]][::-1]


@pytest.mark.parametrize("steps", [1, 10, 20, 50, 100, 1000])
def test_uniform_is_range_where_the_steps_divide(steps):
    assert indices(Uniform(), steps) == list(range(0, 1000, 1000 // steps))


@pytest.mark.parametrize("steps", [3, 7, 300, 999])
def test_uniform_has_exactly_the_steps_asked_for(steps):
    found = indices(Uniform(), steps)
    assert len(found) == len(set(found)) == steps
    assert found[0] == 0


def test_quadratic_sub_sequence():
    assert indices(Quadratic(), 10) == [0, 9, 39, 88, 158, 246, 355, 483, 632, 800]


def test_quadratic_repeats_zero_from_fifty_steps():
    assert indices(Quadratic(), 50)[:2] == [0, 0]


@pytest.mark.parametrize("grid", [Uniform(), Quadratic()])
def test_continuous_grids_descend_to_zero(grid):
    times = grid(16, None)
    assert times.shape == (17,)
    assert (times.diff() < 0).all()
    assert float(times[-1]) == 0


@pytest.mark.parametrize("steps", [0, -3, 1001])
def test_impossible_numbers_of_steps_are_refused(steps):
    with pytest.raises(UserError, match=r"sampler\.steps"):
        Uniform()(steps, 1000)


def test_times_are_float64():
    assert Uniform()(10, 1000).dtype == torch.float64
