"""MDSM on data whose optimum has a closed form, and both energy models as they are configured."""

from __future__ import annotations

import pytest
import torch
from quadratics import NOW, SHAPE, Quadratic, batch, gaussian, vertex

from genbench.contracts import UserError
from genbench.generators.energies import MDSM, GeometricLevels, LinearLevels
from genbench.harness.assembly import Assembly, settle_precision
from genbench.harness.distributed import Ranks

CPU = torch.device("cpu")


def test_levels_start_and_end_exactly_where_they_are_told():
    linear = LinearLevels(0.1, 2.4)(128)
    assert (float(linear[0]), float(linear[-1])) == (0.1, 2.4)
    torch.testing.assert_close(linear.diff(), torch.full((127,), 2.3 / 127, dtype=torch.float64))
    geometric = GeometricLevels(0.2, 6.0)(64)
    assert (float(geometric[0]), float(geometric[-1])) == (0.2, 6.0)
    ratios = geometric[1:] / geometric[:-1]
    torch.testing.assert_close(ratios, torch.full((63,), 30 ** (1 / 63), dtype=torch.float64))


def test_bad_levels_are_refused():
    for levels in (LinearLevels, GeometricLevels):
        with pytest.raises(UserError, match="above 0"):
            levels(0.0, 1.0)
    with pytest.raises(UserError, match="sigma_0"):
        MDSM(Quadratic(1.0), LinearLevels(0.1, 1.0), 0.0, SHAPE)


def test_data_of_one_point_has_one_energy_for_all_levels():
    """E = ||x||^2 / (2 sigma_0^2) and loss zero; anything else costs."""
    shape = (2, 3, 3)
    network = Quadratic(0.0)
    model = MDSM(network, LinearLevels(0.1, 2.4), 0.2, shape)
    where, _ = vertex(lambda: model.loss(batch(torch.zeros(128, *shape)), NOW), network.k)
    assert abs(where - 1 / 0.2**2) < 1e-2
    with torch.no_grad():
        network.k.fill_(1 / 0.2**2)
    assert float(model.loss(batch(torch.zeros(128, *shape)), NOW).total.detach()) < 1e-6


@pytest.mark.parametrize(("sigma", "std"), [(0.5, 1.0), (1.5, 0.3)])
def test_gaussian_data_at_a_single_level(sigma, std):
    """E = sigma^2 ||x||^2 / (2 sigma_0^2 (c^2 + sigma^2)); "error" is then c^2 / (c^2 + sigma^2)."""
    network = Quadratic(0.0)
    model = MDSM(network, LinearLevels(sigma, sigma), 0.2, (1, 10, 10))
    torch.manual_seed(0)
    data = gaussian(4000, std, shape=(1, 10, 10))
    where, least = vertex(lambda: model.loss(data, NOW), network.k)
    expected = sigma**2 / (0.2**2 * (std**2 + sigma**2))
    assert abs(where / expected - 1) < 0.01
    error = std**2 / (std**2 + sigma**2)
    assert abs(least * 0.2**4 / 100 / error - 1) < 0.02
    with torch.no_grad():
        network.k.fill_(where)
    assert abs(float(model.loss(data, NOW).parts["error"].detach()) / error - 1) < 0.02


def test_levels_are_weighted_by_their_inverse_square():
    """The best quadratic over levels: k = B / (sigma_0^2 sum_i (1 + c^2 / sigma_i^2))."""
    network, levels = Quadratic(0.0), GeometricLevels(0.2, 2.0)
    model = MDSM(network, levels, 1.0, SHAPE)
    torch.manual_seed(0)
    where, _ = vertex(lambda: model.loss(gaussian(40_000, 0.7), NOW), network.k)
    expected = 1 / float((1 + 0.7**2 / levels(40_000).square()).mean())
    assert abs(where / expected - 1) < 0.02


def test_the_loss_is_that_of_the_paper_in_the_papers_range():
    """[0, 1] with sigma_0 = .1 and [-1, 1] with .2: the same energy, 16 times the loss."""
    torch.manual_seed(0)
    here = MDSM(Quadratic(30.0), LinearLevels(0.1, 2.4), 0.2, SHAPE)
    there = MDSM(Quadratic(120.0, centre=0.5), LinearLevels(0.05, 1.2), 0.1, SHAPE)
    images = torch.rand(64, *SHAPE)
    losses = []
    for model, data in ((here, 2 * images - 1), (there, images)):
        torch.manual_seed(3)
        losses.append(model.loss(batch(data), NOW).total.detach())
    torch.testing.assert_close(losses[1], 16 * losses[0], rtol=1e-4, atol=0)


@pytest.mark.parametrize("model", ["mdsm", "dde"])
def test_losses_are_computed_outside_autocast(compose, model):
    config = compose(f"model={model}", "trainer.batch_size=16")
    generator = Assembly(settle_precision(config, CPU), CPU, Ranks()).generator()
    data, values = gaussian(16, shape=(1, 8, 8)), []
    for enabled in (False, True):
        torch.manual_seed(0)
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            values.append(generator.phases()[0].loss(data, NOW).total.detach())
    assert torch.equal(*values)


@pytest.mark.parametrize("network", ["residual", "plain", "perceptron"])
@pytest.mark.parametrize(("model", "more"), [("mdsm", []), ("dde", ["model.generator.widths=[8,8]"])])
def test_every_network_serves_both(compose, model, more, network):
    sizes = {
        "residual": ["energy_network.channels=4", "energy_network.multipliers=[1,2]"],
        "plain": ["energy_network.widths=[4,4]", "energy_network.halve=[true,false]"],
        "perceptron": ["energy_network.width=8", "energy_network.layers=2"],
    }
    config = compose(f"model={model}", "recipe=none", f"energy_network={network}", *sizes[network], *more)
    generator = Assembly(settle_precision(config, CPU), CPU, Ranks()).generator()
    data = gaussian(16, shape=(1, 8, 8))
    phase = generator.phases()[0]
    phase.loss(data, NOW).total.backward()
    assert generator.energy(data.images).shape == (16,)
    assert any(bool(parameter.grad.abs().any()) for parameter in phase.params.parameters())


@pytest.mark.parametrize("model", ["mdsm", "dde"])
def test_published_recipes_are_the_published_ones(compose, model):
    """In [-1, 1]: MDSM's sigmas doubled from [0, 1], DDE's from [-1/2, 1/2]."""
    config = compose(f"model={model}", "dataset=cifar10")
    optim, trainer = config["optim"], config["trainer"]
    if model == "mdsm":
        levels = config["model"]["levels"]
        assert (levels["low"], levels["high"], config["model"]["reference_sigma"]) == (0.1, 2.4, 0.2)
        assert (optim["lr"], optim["optimizer"]["betas"], optim["clip"]) == (5e-5, [0.9, 0.95], None)
        assert abs(optim["decay"]["final"] * optim["lr"] - 1e-6) < 1e-12
        assert (trainer["steps"], trainer["batch_size"]) == (300_000, 128)
        assert config["dataset"]["flip"] is False
        sampler = config["sampler"]
        assert (sampler["name"], sampler["epsilon"], sampler["start_std"]) == ("energy_langevin", 0.04, 2.0)
    else:
        assert (config["model"]["sigma"], config["model"]["latent"]) == (1.2, 32)
        assert (config["model"]["real_steps"], config["model"]["fake_steps"]) == (5, 5)
        assert config["model"]["s_p"]["widths"] == [32, 64, 64, 128, 128, 256, 256, 512, 512]
        assert optim["phases"]["s_p"]["lr"] == optim["phases"]["s_q"]["lr"] == 5e-3
        assert (optim["optimizer"]["betas"], trainer["batch_size"]) == ([0.9, 0.999], 64)
