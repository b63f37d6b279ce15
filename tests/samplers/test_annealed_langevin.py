"""Annealed Langevin dynamics step by step, at scaled data, and what only annealing can do."""

from __future__ import annotations

import torch
from exact import Exact
from torch import Tensor

from genbench.corruptions.continuous import VP, Geometric
from genbench.corruptions.gaussian import Gaussian
from genbench.generators.oracles import GaussianOracle, MixtureOracle
from genbench.ops.random import Keys, Stream
from genbench.samplers.annealed_langevin import AnnealedLangevin
from genbench.samplers.grids import Grid, Uniform

KEYS = Keys(torch.arange(3), 0)


def test_steps_are_those_of_the_reference_code():
    """x + a_i score + sqrt(2 a_i) z with a_i = e (s_i / s_L)^2, twice at each of three levels from above, and
    one denoising at the last (Song & Ermon 2019, algorithm 1, in their code's convention)."""
    c, e, levels = 0.5, 1e-3, (2.0, 0.2, 0.02)
    start = torch.full((3, 1, 2, 2), 1.5, dtype=torch.float64)
    model = GaussianOracle(Exact(Geometric(3, 0.02, 2.0), start), (1, 2, 2), std=c)
    x, step = start, 0
    for level in levels:
        a = e * (level / 0.02) ** 2
        for _ in range(2):
            noise = KEYS.normal((1, 2, 2), step, Stream.STEP).double()
            x = x - a * x / (c**2 + level**2) + (2 * a) ** 0.5 * noise
            step += 1
    noisy = AnnealedLangevin(3, Uniform(), 2, e, denoise=False)(model, KEYS)
    torch.testing.assert_close(noisy.images, x, rtol=1e-12, atol=1e-12)
    clean = AnnealedLangevin(3, Uniform(), 2, e)(model, KEYS)
    torch.testing.assert_close(clean.images, x * c**2 / (c**2 + 0.02**2), rtol=1e-12, atol=1e-12)
    assert (noisy.nfe.tolist(), clean.nfe.tolist()) == ([6] * 3, [7] * 3)


class AtLevels(Grid):
    """The times of given noise levels, in units of sigma / alpha."""

    def __init__(self, levels: tuple[float, ...]) -> None:
        self.levels = torch.tensor(levels, dtype=torch.float64)

    def __call__(self, steps: int, corruption) -> Tensor:
        times = corruption.schedule.time_at(-self.levels.log())
        return torch.cat((times, torch.zeros(1, dtype=torch.float64)))


def test_scaled_data_is_sampled_in_its_own_units():
    """The same levels of a variance-preserving model make the same images."""
    grid, start = AtLevels((2.0, 0.2, 0.02)), torch.full((3, 1, 2, 2), 1.5, dtype=torch.float64)
    scale = VP().alpha(grid(3, Gaussian(VP()))[0])
    for denoise in (False, True):
        sampler = AnnealedLangevin(3, grid, 2, 1e-3, denoise)
        plain, scaled = (
            sampler(GaussianOracle(Exact(schedule, first), (1, 2, 2), std=0.5), KEYS).images
            for schedule, first in ((Geometric(3, 0.02, 2.0), start), (VP(), scale * start))
        )
        torch.testing.assert_close(plain, scaled, rtol=1e-9, atol=1e-9)


def test_one_narrow_level_never_leaves_the_mode_it_started_in():
    """Modes at -1 and 1 with weights .2 and .8: from a level as wide as they are apart all images that start
    in the smaller one are spread by weight; at a level of .06 they stay, whatever its weight."""
    count, start = 500, torch.tensor(-1.0)
    law = ([[[[-1.0]]], [[[1.0]]]], [0.05, 0.05], [0.2, 0.8])
    keys = Keys(torch.arange(count), 0)
    narrow = MixtureOracle(Exact(Geometric(2, 0.05, 0.06), start), *law)
    stuck = AnnealedLangevin(2, Uniform(), 50, 2e-4)(narrow, keys).images
    assert bool((stuck < 0).all())
    wide = MixtureOracle(Exact(Geometric(10, 0.05, 5.0), start), *law)
    images = AnnealedLangevin(10, Uniform(), 60, 2e-4)(wide, keys).images
    assert abs(float((images > 0).double().mean()) - 0.8) < 5 * (0.16 / count) ** 0.5
