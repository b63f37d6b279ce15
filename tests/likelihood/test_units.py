"""Bits per dimension: a uniform model costs log2 V of them for V grey levels, through every path."""

from __future__ import annotations

import itertools

import pytest
import torch

from genbench.corruptions.continuous import EDM, VP, Flow
from genbench.corruptions.gaussian import Gaussian
from genbench.corruptions.gaussian_rules import Eta, Spread
from genbench.corruptions.schedules import Linear
from genbench.generators.oracles import DataOracle, MixtureOracle
from genbench.likelihood.bound import BoundLikelihood
from genbench.likelihood.ode import ODELikelihood
from genbench.ops.random import Keys


@pytest.mark.parametrize(("levels", "bits"), [(256, 8.0), (17, 4.087463)])
@pytest.mark.parametrize("schedule", [VP(), EDM(), Flow()], ids=lambda schedule: type(schedule).__name__)
def test_a_uniform_density_costs_the_bits_of_its_levels(schedule, levels, bits):
    """Gaussians one deviation apart, over the cells of all levels and two pixels: a density that far from the
    edges is 1 / area to 1e-8, whatever noise is added to it."""
    side = 24
    width = 2 * levels / (levels - 1)
    spacing = width / side
    line = (torch.arange(side) + 0.5) * spacing - width / 2
    centres = torch.tensor(list(itertools.product(line.tolist(), repeat=2))).reshape(-1, 1, 1, 2)
    model = MixtureOracle(
        Gaussian(schedule), centres, torch.full((side**2,), spacing), torch.ones(side**2), [1, 1, 2]
    )
    index = torch.tensor([[levels // 2, levels // 2], [levels * 5 // 12, levels * 7 // 12]])
    images = (2 * index / (levels - 1) - 1).reshape(2, 1, 1, 2).double()
    found = ODELikelihood(exact=True)(model, images, levels, Keys(torch.arange(2), 0))
    torch.testing.assert_close(found, torch.full_like(found, bits), rtol=0, atol=1e-3)


def test_fair_coins_cost_a_bit_a_pixel():
    """Four pixels of two levels, all sixteen images as likely: the variational bound of their exact denoiser,
    in which fifty steps leave no gap beside five standard errors."""
    images = torch.tensor(list(itertools.product((-1.0, 1.0), repeat=4))).reshape(16, 1, 2, 2)
    model = DataOracle(Gaussian(Linear(50, 2e-3, 0.3)), images)
    found = BoundLikelihood(Spread(Eta(1.0)))(
        model, images.repeat(60, 1, 1, 1), 2, Keys(torch.arange(960), 0)
    )
    error = float(found.std()) / 960**0.5
    assert error < 0.02
    assert abs(float(found.mean()) - 1) < 5 * error
