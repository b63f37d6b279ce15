"""Sub-sequences of DDIM's code."""

from __future__ import annotations

import pytest
import torch

from genbench.contracts import UserError
from genbench.corruptions.continuous import EDM, VP, Flow, Geometric
from genbench.corruptions.gaussian import Gaussian
from genbench.corruptions.masking import Counted, Mask
from genbench.corruptions.schedules import Linear
from genbench.samplers.grids import Cosine, LogSNR, Quadratic, Rho, Uniform

DISCRETE = Gaussian(Linear())
CONTINUOUS = Gaussian(VP())


def indices(grid, steps: int, total: int = 1000) -> list[int]:
    times = grid(steps, DISCRETE)
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


@pytest.mark.parametrize("grid", [Uniform(), Quadratic(), LogSNR(), Rho()])
def test_continuous_grids_descend_to_zero(grid):
    times = grid(16, CONTINUOUS)
    assert times.shape == (17,)
    assert (times.diff() < 0).all()
    assert float(times[-1]) == 0


@pytest.mark.parametrize("steps", [0, -3, 1001])
def test_impossible_numbers_of_steps_are_refused(steps):
    with pytest.raises(UserError, match=r"sampler\.steps"):
        Uniform()(steps, DISCRETE)


def test_times_are_float64():
    assert Uniform()(10, DISCRETE).dtype == torch.float64


def test_edms_noise_levels():
    """Karras et al. 2022, eq. 5 with 18 levels from 80 to .002 and rho 7."""
    times = Rho(80.0, 0.002)(18, Gaussian(EDM()))
    expected = [80, 57.586, 40.7856, 28.3746, 19.3525, 12.9101, 8.4009, 5.3152, 3.2568]
    expected += [1.9233, 1.0882, 0.5853, 0.2964, 0.1395, 0.0599, 0.0229, 0.0075, 0.002, 0]
    torch.testing.assert_close(80 * times, torch.tensor(expected).double(), atol=6e-5, rtol=2e-5)


@pytest.mark.parametrize("corruption", [DISCRETE, CONTINUOUS, Gaussian(EDM())])
def test_log_snr_steps_are_even(corruption):
    times = LogSNR()(12, corruption)
    lambdas = corruption.schedule.half_log_snr(times[:-1])
    torch.testing.assert_close(lambdas.diff(), lambdas.diff().mean().expand(11), rtol=1e-6, atol=0)
    assert float(times[0]) == 1


def test_rho_has_the_same_noise_levels_for_every_schedule():
    for corruption in (DISCRETE, CONTINUOUS, Gaussian(Flow())):
        times = Rho(10.0, 0.05)(5, corruption)[:-1]
        levels = (corruption.sigma(times) / corruption.alpha(times)) ** (1 / 7)
        torch.testing.assert_close(levels.diff(), levels.diff().mean().expand(4), rtol=1e-6, atol=0)
        assert float(levels[0]) == pytest.approx(10 ** (1 / 7))


def test_a_path_from_pure_noise_needs_a_first_level():
    with pytest.raises(UserError, match=r"grid\.start=0\.999"):
        LogSNR()(10, Gaussian(Flow()))
    with pytest.raises(UserError, match=r"grid\.sigma_max"):
        Rho()(10, Gaussian(Flow()))


def test_geometric_levels_are_visited_one_by_one():
    corruption = Gaussian(Geometric(10, 0.02, 2.0))
    times = Uniform()(10, corruption)
    levels = corruption.sigma(times[:-1])
    torch.testing.assert_close(
        levels[1:] / levels[:-1], torch.full((9,), 0.59948).double(), rtol=1e-5, atol=0
    )


@pytest.mark.parametrize(("total", "steps"), [(100, 5), (8, 8), (10, 3), (7, 6)])
def test_corruptions_without_a_noise_schedule_start_at_one(total, steps):
    """Only there is their law known."""
    times = Uniform()(steps, Mask(Counted(), total))
    assert float(times[0]) == 1.0
    assert len(times) == steps + 1
    assert (times.diff() < 0).all()
    torch.testing.assert_close((times * total).round() / total, times, rtol=0, atol=1e-15)


@pytest.mark.parametrize("total", [None, 64])
def test_the_cosine_grid_is_maskgits(total):
    """gamma(r) = cos(pi r / 2) of the image is hidden after a share r of the steps."""
    times = Cosine()(8, Mask(Counted(), total))
    expected = torch.cos(torch.arange(9, dtype=torch.float64) / 8 * torch.pi / 2)
    expected[-1] = 0
    torch.testing.assert_close(
        times, expected if total is None else (expected * 64).ceil() / 64, atol=1e-12, rtol=0
    )
    assert float(times[0]) == 1.0
