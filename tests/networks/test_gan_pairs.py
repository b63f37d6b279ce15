"""The generator and critic pairs of GANs."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from genbench.contracts import UserError
from genbench.networks.critic import Projection
from genbench.networks.dcgan import PlainCritic, PlainGenerator
from genbench.networks.sngan import ResidualCritic, ResidualGenerator


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def test_the_residual_pair_is_the_published_one():
    """Layer by layer from Miyato et al. (2018), appendix B.4: 3x32x32, z of 128, 256 and 128 channels."""
    conv = lambda inside, outside, size=3: inside * outside * size**2 + outside
    norm = 2 * 256
    block = 2 * conv(256, 256) + conv(256, 256, 1) + 2 * norm
    generator = (128 + 1) * 256 * 16 + 3 * block + norm + conv(256, 3)
    assert count(ResidualGenerator((3, 32, 32), 128)) == generator == 4_276_739
    first = conv(3, 128) + conv(128, 128) + conv(3, 128, 1)
    second = 2 * conv(128, 128) + conv(128, 128, 1)
    critic = first + second + 2 * 2 * conv(128, 128) + 129
    assert count(ResidualCritic((3, 32, 32))) == critic


@pytest.mark.parametrize(
    ("shape", "generator", "critic"),
    [
        ((1, 8, 8), {"widths": [12, 8]}, {"widths": [8, 12]}),
        ((1, 28, 28), {"widths": [12, 8]}, {"widths": [8, 12]}),
        ((3, 32, 32), {"widths": [12, 8, 8]}, {"widths": [8, 8, 12]}),
        ((3, 64, 64), {"widths": [12, 8, 8, 8]}, {"widths": [8, 8, 8, 12]}),
    ],
)
@pytest.mark.parametrize("classes", [0, 10])
def test_plain_pairs_fit_every_size(shape, generator, critic, classes):
    labels = torch.arange(3) if classes else None
    images = PlainGenerator(shape, 5, classes=classes, **generator)(torch.randn(3, 5), labels)
    assert images.shape == (3, *shape)
    assert float(images.detach().abs().max()) <= 1
    assert PlainCritic(shape, classes=classes, **critic)(images, labels).shape == (3,)


@pytest.mark.parametrize(
    ("shape", "steps"),
    [
        ((1, 8, 8), [True, True]),
        ((1, 28, 28), [True, True, False]),
        ((3, 32, 32), [True, True, False, False]),
    ],
)
def test_residual_pairs_fit_every_size(shape, steps):
    widths = [8] * len(steps)
    images = ResidualGenerator(shape, 5, widths, steps)(torch.randn(3, 5))
    assert images.shape == (3, *shape)
    assert ResidualCritic(shape, widths, steps)(images).shape == (3,)


@pytest.mark.parametrize("network", [PlainCritic, PlainGenerator])
def test_sizes_that_cannot_be_halved_are_refused(network):
    arguments = ((1, 28, 28), 5) if network is PlainGenerator else ((1, 28, 28),)
    with pytest.raises(UserError, match="3 doublings cannot end at images of 28x28"):
        network(*arguments, widths=[8, 8, 8])


def test_the_generator_starts_at_unit_scale():
    """Transposed convolutions of stride two use a quarter of their kernel for each pixel."""
    torch.manual_seed(0)
    generator = PlainGenerator((3, 32, 32), 64, widths=[64, 64, 64])
    seen = []
    for doubling in generator.doublings:
        doubling.register_forward_hook(lambda module, inputs, output: seen.append(output.std().item()))
    generator(torch.randn(64, 64))
    assert all(0.3 < std < 2 for std in seen), seen


def test_the_projection_adds_the_inner_product_with_the_class():
    torch.manual_seed(0)
    head = Projection(4, classes=3)
    features, labels = torch.randn(5, 4), torch.tensor([0, 1, 2, 0, 1])
    expected = features @ head.linear.weight[0] + head.linear.bias[0]
    expected = expected + torch.stack([head.classes.weight[y] @ phi for y, phi in zip(labels, features)])
    torch.testing.assert_close(head(features, labels), expected)
    with pytest.raises(UserError, match="needs labels"):
        head(features)


def test_the_critics_sum_over_pixels():
    """Sum and not mean: an image four times as large, of the same content, has four times the features."""
    torch.manual_seed(0)
    critic = ResidualCritic((1, 8, 8), [4, 4], [True, False])
    flat = torch.full((1, 1, 8, 8), 0.5)
    with torch.no_grad():
        for block in critic.blocks:  # no borders: 1x1 content of every kernel
            for layer in (block.conv_in, block.conv_out):
                centre = layer.weight[:, :, 1:2, 1:2].clone()
                layer.weight.zero_()[:, :, 1:2, 1:2] = centre
        small, large = critic.features(flat), critic.features(flat.repeat(1, 1, 2, 2))
    torch.testing.assert_close(large, 4 * small)
