"""Energy networks: gradient fields that can be trained, of any size; images do not see each other."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from torch import nn

from genbench.contracts import UserError
from genbench.networks.energies import (
    PerceptronEnergy,
    PlainEnergy,
    QuadraticHead,
    ResidualEnergy,
    gain,
    require_curved,
)
from genbench.ops.gradients import gradient

NETWORKS = {
    "residual 8x8": ((1, 8, 8), lambda shape: ResidualEnergy(shape, 8, (1, 2, 4), 2)),
    "residual 28x28": ((1, 28, 28), lambda shape: ResidualEnergy(shape, 4, (1, 2, 4), 2)),
    "residual 32x32": ((3, 32, 32), lambda shape: ResidualEnergy(shape, 4, (1, 2, 4, 8), 3)),
    "plain 8x8": ((1, 8, 8), lambda shape: PlainEnergy(shape, (8, 16), (True, True), (16,))),
    "plain 32x32": ((3, 32, 32), lambda shape: PlainEnergy(shape, (8, 8, 16), (True, True, True), (16,))),
    "plain, not equalised": (
        (1, 28, 28),
        lambda shape: PlainEnergy(shape, (8, 8), (True, True), (16,), equalised=False),
    ),
    "plain without convolutions": ((1, 8, 8), lambda shape: PlainEnergy(shape, (), (), (32, 32))),
    "perceptron": ((1, 8, 8), lambda shape: PerceptronEnergy(shape, 16, 4)),
}


@pytest.fixture(params=NETWORKS)
def built(request) -> tuple[nn.Module, tuple[int, int, int]]:
    shape, make = NETWORKS[request.param]
    torch.manual_seed(0)
    return make(shape), shape


def test_energies_and_gradients_start_at_moderate_size(built):
    """Across noise of .3 to 3: neither flat nor steep, whatever the depth and the size of the image."""
    network, shape = built
    for std in (0.3, 1.0, 3.0):
        x = std * torch.randn(64, *shape)
        energies = network(x)
        assert energies.shape == (64,)
        steepness = gradient(network, x).flatten(1).norm(dim=1).mean()
        assert 3e-3 < float(energies.detach().std()) < 30
        assert 3e-3 < float(steepness) < 30


def test_images_do_not_see_each_other(built):
    network, shape = built
    x = torch.randn(5, *shape)
    apart = torch.cat([network(image[None]) for image in x])
    torch.testing.assert_close(network(x), apart, rtol=1e-4, atol=1e-5)


def test_the_gradient_field_is_curl_free(built):
    """The Jacobian of the gradient is symmetric, by central differences in float64 in a few directions.

    The step is short because ELU's second derivative jumps at zero.
    """
    network, shape = built
    network = network.double()
    x = torch.randn(1, *shape, dtype=torch.float64)
    directions = torch.randn(6, *shape, dtype=torch.float64)
    step = 1e-7
    slopes = (gradient(network, x + step * directions) - gradient(network, x - step * directions)) / (
        2 * step
    )
    jacobian = directions.flatten(1) @ slopes.flatten(1).T
    assert float(jacobian.norm()) > 1e-4
    torch.testing.assert_close(jacobian, jacobian.T, rtol=0, atol=1e-4 * float(jacobian.norm()))


def test_the_gradient_trains_every_weight(built):
    """A loss on grad E reaches all parameters but constants, which a gradient does not know."""
    network, shape = built
    slope = gradient(network, torch.randn(8, *shape), create_graph=True)
    slope.square().sum().backward()
    unreached = {
        name for name, p in network.named_parameters() if p.grad is None or not bool(p.grad.abs().any())
    }
    assert unreached <= {"head.bias", "head.squares.bias"}


@pytest.mark.parametrize("activation", [nn.ReLU(), nn.LeakyReLU(0.2), nn.Identity()])
def test_piecewise_linear_activations_are_refused(activation):
    with pytest.raises(UserError, match=f"{type(activation).__name__} has none"):
        PlainEnergy((1, 8, 8), (8,), (True,), (8,), activation)
    with pytest.raises(UserError, match="second derivative"):
        ResidualEnergy((1, 8, 8), 8, (1, 2), 1, activation)


@pytest.mark.parametrize("activation", [nn.ELU(), nn.SiLU(), nn.Softplus(), nn.GELU(), nn.Tanh()])
def test_curved_activations_are_accepted(activation):
    assert require_curved(activation) is activation


def test_the_gain_is_hes_for_relu():
    assert abs(gain(nn.ReLU()) - 2**0.5) < 1e-3
    z = torch.randn(2_000_000)
    assert abs(gain(nn.ELU()) * float(nn.functional.elu(z).square().mean().sqrt()) - 1) < 3e-3


def test_the_head_is_the_quadratic_one():
    torch.manual_seed(0)
    head, h = QuadraticHead(5), torch.randn(3, 5)
    for parameter in head.parameters():
        nn.init.normal_(parameter)
    value = lambda layer, h: h @ layer.weight[0] + layer.bias
    expected = value(head.first, h) * value(head.second, h) + value(head.squares, h**2)
    torch.testing.assert_close(head(h), expected)


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def test_the_published_networks_layer_by_layer():
    """MDSM's Res18 of 128 channels at 3x32x32 and DDE's CelebA-32 estimator."""
    conv = lambda inside, outside, size=3: inside * outside * size**2 + outside
    bare = lambda inside: inside * inside * 9  # a block's first convolution, without constants
    expected, width = conv(3, 128), 128
    for outside in (256, 512, 1024):
        expected += bare(width) + conv(width, outside) + conv(width, outside, 1)
        expected += 2 * (bare(outside) + conv(outside, outside))
        width = outside
    expected += 3 * (4 * 4 * 1024 + 1)
    assert count(ResidualEnergy((3, 32, 32))) == expected
    widths = (3, 32, 64, 64, 128, 128, 256, 256, 512, 512)
    convolutions = sum(conv(inside, outside) for inside, outside in pairwise(widths))
    assert count(PlainEnergy((3, 32, 32))) == convolutions + (2 * 2 * 512 + 1) * 512 + 513


def test_equalised_weights_are_standard_normal_and_scaled_at_use():
    torch.manual_seed(0)
    layer = PlainEnergy((1, 8, 8), (64,), (False,), (64,)).body[3]
    parameter = layer.parametrizations.weight.original
    assert abs(float(parameter.detach().std()) - 1) < 0.01
    scale = gain(nn.SiLU()) / (64 * 64) ** 0.5
    torch.testing.assert_close(layer.weight, parameter * scale)


def test_sizes_that_do_not_halve_are_refused():
    with pytest.raises(UserError, match="28x28"):
        ResidualEnergy((1, 28, 28), 8, (1, 2, 4, 8))
    with pytest.raises(UserError, match="3 widths and 2 entries"):
        PlainEnergy((1, 8, 8), (8, 8, 8), (True, False))
