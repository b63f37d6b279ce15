"""Langevin dynamics on energies in closed form: stationary law, schedule, jump, randomness, counted NFE."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from genbench.contracts import Energy, UserError
from genbench.generators.energies import MDSM, LinearLevels
from genbench.networks.energies import ResidualEnergy
from genbench.ops.gradients import gradient
from genbench.ops.random import Keys, Stream
from genbench.samplers.counting import Counted
from genbench.samplers.energy_langevin import EnergyLangevin, Exponential, Hold, Linear

SHAPE = (1, 4, 4)


class Well(nn.Module):
    """E(x) = ||x - centre||^2 / (2 v), which is MDSM's optimum for data at `centre` if v = sigma_0^2."""

    def __init__(self, variance: float, centre: float = 0.0) -> None:
        super().__init__()
        self.image_shape = SHAPE
        self.variance, self.centre = nn.Parameter(torch.tensor(variance)), centre

    def energy(self, x: Tensor) -> Tensor:
        return (x - self.centre).square().flatten(1).sum(dim=1) / (2 * self.variance)


class Known(Well):
    """The same, and it says its sigma_0; a jump of another length than sqrt(v) leaves something to see."""

    def __init__(self, variance: float, reference_sigma: float, centre: float = 0.0) -> None:
        super().__init__(variance, centre)
        self.reference_sigma = reference_sigma


def small() -> EnergyLangevin:
    cooling = {"hold": Hold(3, 4.0), "cool": Exponential(4, 4.0, 1.0), "settle": Linear(2, 1.0, 0.0)}
    return EnergyLangevin(0.3, cooling)


@pytest.mark.parametrize(("variance", "epsilon", "temperature"), [(2.0, 1.0, 1.0), (1.0, 0.8, 3.0)])
def test_the_stationary_variance_is_the_discretised_ones(variance, epsilon, temperature):
    """T v / (1 - epsilon^2 / (4 v)), within five standard errors of 64,000 pixels; 17 % above T v at most."""
    sampler = EnergyLangevin(epsilon, {"hold": Hold(40, temperature)}, jump=False)
    images = sampler(Well(variance), Keys(torch.arange(4000), 0)).images.double()
    expected = temperature * variance / (1 - epsilon**2 / (4 * variance))
    assert abs(float(images.var()) - expected) < 5 * expected * (2 / images.numel()) ** 0.5
    assert abs(float(images.mean())) < 5 * (expected / images.numel()) ** 0.5


def test_a_step_is_the_formula():
    """x - (epsilon^2 / 2) grad E + epsilon sqrt(T) z, from start_std times the start's normals."""
    keys, model = Keys(torch.arange(3), 7), Well(2.0, centre=1.0)
    found = EnergyLangevin(0.5, {"hold": Hold(1, 9.0)}, start_std=3.0, jump=False)(model, keys).images
    x = 3.0 * keys.normal(SHAPE, 0, Stream.TERMINAL)
    expected = x - 0.125 * (x - 1.0) / 2.0 + 0.5 * 3.0 * keys.normal(SHAPE, 0, Stream.STEP)
    torch.testing.assert_close(found, expected)


def test_every_step_draws_its_own_noise():
    keys, model = Keys(torch.arange(2), 0), Well(1e9)
    found = EnergyLangevin(1.0, {"a": Hold(1, 1.0), "b": Hold(1, 1.0)}, 0.0, jump=False)(model, keys).images
    expected = keys.normal(SHAPE, 0, Stream.STEP) + keys.normal(SHAPE, 1, Stream.STEP)
    torch.testing.assert_close(found, expected)


def test_the_jump_lands_on_data_of_one_point():
    """For E = ||x - c||^2 / (2 sigma_0^2) one jump ends at c from anywhere."""
    sampler = EnergyLangevin(0.1, {"hold": Hold(2, 50.0)})
    images = sampler(Known(0.04, 0.2, centre=0.3), Keys(torch.arange(5), 0)).images
    torch.testing.assert_close(images, torch.full_like(images, 0.3), rtol=0, atol=1e-5)


def test_the_papers_schedule():
    """500 steps at 100, 2000 in equal ratios to 1, 200 in equal differences to 0, and the jump."""
    cooling = {"hold": Hold(500, 100.0), "cool": Exponential(2000, 100.0, 1.0), "end": Linear(200, 1.0, 0.0)}
    sampler = EnergyLangevin(0.04, cooling)
    assert sampler.evaluations() == 2701
    temperatures = torch.tensor(sampler.temperatures, dtype=torch.float64)
    assert temperatures[:500].eq(100).all()
    assert abs(float(temperatures[2499]) - 1) < 1e-12
    assert float(temperatures[2699]) == 0
    ratios = temperatures[500:2500] / temperatures[499:2499]
    torch.testing.assert_close(ratios, torch.full((2000,), 0.01 ** (1 / 2000), dtype=torch.float64))
    differences = temperatures[2500:2700] - temperatures[2499:2699]
    torch.testing.assert_close(differences, torch.full((200,), -1 / 200, dtype=torch.float64))


@pytest.mark.parametrize("dataset", ["cifar10", "digits"])
def test_configured_schedules_and_their_length(compose, dataset):
    from genbench.harness.assembly import Assembly
    from genbench.harness.distributed import Ranks

    config = compose("model=mdsm", f"dataset={dataset}")
    evaluations = Assembly(config, torch.device("cpu"), Ranks()).sampler().evaluations()
    assert evaluations == 2701 if dataset == "cifar10" else evaluations <= 300


@pytest.mark.parametrize("batch", [1, 7, 64])
def test_images_do_not_depend_on_their_batch(batch):
    index = torch.arange(64)
    whole = small()(Known(0.5, 0.4), Keys(index, 3)).images
    apart = torch.cat([small()(Known(0.5, 0.4), Keys(piece, 3)).images for piece in index.split(batch)])
    assert torch.equal(whole, apart)


def test_the_seed_decides_the_images():
    draw = lambda seed: small()(Known(0.5, 0.4), Keys(torch.arange(4), seed)).images
    assert torch.equal(draw(0), draw(0))
    assert not torch.equal(draw(0), draw(1))


def test_every_gradient_is_counted_once():
    samples = small()(Known(0.5, 0.4), Keys(torch.arange(3), 0))
    assert samples.nfe.tolist() == [10] * 3
    assert small().evaluations() == 10
    counted = Counted(Known(0.5, 0.4), 3)
    counted.gradient(torch.zeros(2, *SHAPE), rows=torch.tensor([True, False, True]))
    assert counted.nfe.tolist() == [1, 0, 1]


def test_the_harness_sees_each_gradient():
    """What estimates the time of sampling counts the same evaluations and can stop after a few."""
    from genbench.harness.estimate import _Enough, _Stopwatch

    watch = _Stopwatch(Known(0.5, 0.4), 100)
    small()(watch, Keys(torch.arange(2), 0))
    assert len(watch.moments) == 10
    with pytest.raises(_Enough), torch.inference_mode():
        small()(_Stopwatch(Known(0.5, 0.4), 3), Keys(torch.arange(2), 0))


def model() -> MDSM:
    torch.manual_seed(0)
    return MDSM(ResidualEnergy((1, 8, 8), 4, (1, 2), 1), LinearLevels(0.1, 2.4), 0.2, (1, 8, 8)).eval()


def test_gradients_under_inference_mode_are_those_outside():
    network = model()
    assert isinstance(network, Energy)
    x = torch.randn(5, 1, 8, 8)
    outside = gradient(network.energy, x)
    with torch.inference_mode():
        inside = gradient(network.energy, x.clone())  # a tensor that can never enter a graph
        images = small()(network, Keys(torch.arange(3), 0)).images
    assert torch.equal(inside, outside)
    assert torch.equal(images, small()(network, Keys(torch.arange(3), 0)).images)
    assert not outside.requires_grad
    assert all(parameter.grad is None for parameter in network.parameters())


def test_a_jump_without_its_size_is_refused():
    with pytest.raises(UserError, match=r"reference_sigma.*sampler\.jump=false"):
        small().check(Well(0.5))
    small().check(Known(0.5, 0.4))
    EnergyLangevin(0.3, {"hold": Hold(1, 1.0)}, jump=False).check(Well(0.5))


@pytest.mark.parametrize(
    "make",
    [
        lambda: Hold(-1, 1.0),
        lambda: Linear(2, 1.0, -0.5),
        lambda: Exponential(2, 1.0, 0.0),
        lambda: EnergyLangevin(0.0, {}),
    ],
)
def test_impossible_schedules_are_refused(make):
    with pytest.raises(UserError):
        make()
