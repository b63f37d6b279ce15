"""The autoencoder's loss in closed form, its codes and pictures; four models differ in the code alone."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import nn

from genbench.contracts import Autoencodes, Batch, Decodes, Illustrates, Step
from genbench.errors import UserError
from genbench.generators.autoencoder import Autoencoder
from genbench.generators.codes import Code, Entropic, Plain, SquaredNorm, Variational
from genbench.generators.entropy import NearestNeighbourEntropy
from genbench.networks.autoencoders import ConvDecoder, ConvEncoder
from genbench.ops.random import Keys

SHAPE = (1, 2, 2)
START = Step(0, 1)


class Flatten(nn.Module):
    """Pixels as they are; for a code of two numbers a dimension, log sigma^2 = 0 beside them."""

    def __init__(self, outputs: int) -> None:
        super().__init__()
        self.outputs = outputs

    def forward(self, images):
        pixels = images.flatten(1)
        return torch.cat([pixels, torch.zeros_like(pixels)], dim=1)[:, : self.outputs]


class Halve(nn.Module):
    """D(z) = w z as an image, with w = 1/2, and a bias of 0."""

    def __init__(self, latent: int) -> None:
        super().__init__()
        self.norm = nn.Parameter(torch.full((latent,), 5.0))
        self.weight = nn.Parameter(torch.full((latent, 1), 0.5))

    def forward(self, z):
        return (z * self.weight[:, 0] + 0 * self.norm).reshape(-1, *SHAPE)


def toy(code: Code | None = None, decoder_decay: float = 0.0) -> Autoencoder:
    return Autoencoder(Flatten, Halve, code or Plain(), SHAPE, 4, decoder_decay)


def convolutional(code: Code, latent: int = 3) -> Autoencoder:
    torch.manual_seed(0)
    shape = (1, 8, 8)
    return Autoencoder(
        partial(ConvEncoder, image_shape=shape, widths=[8, 8]),
        partial(ConvDecoder, image_shape=shape, widths=[8, 8]),
        code,
        shape,
        latent,
    )


def codes(latent: int) -> dict[str, Code]:
    return {
        "plain": Plain(),
        "squared": SquaredNorm(0.1),
        "variational": Variational(0.1),
        "entropic": Entropic(latent, NearestNeighbourEntropy(), 0.1),
    }


def batch(count: int = 16, shape: tuple[int, ...] = SHAPE) -> Batch:
    images = torch.rand(count, *shape, generator=torch.Generator().manual_seed(0)) * 2 - 1
    return Batch(images, None, torch.arange(count))


def test_the_error_is_summed_over_pixels_and_averaged_over_images():
    """D(E(x)) = x / 2, so the error is the mean over images of ||x||^2 / 4."""
    images = batch().images
    losses = toy().loss(batch(), START)
    assert torch.allclose(losses.total, images.square().flatten(1).sum(dim=1).mean() / 4)
    assert torch.equal(losses.parts["reconstruction"], losses.total)


def test_the_penalty_is_added_and_logged():
    losses = toy(SquaredNorm(3.0)).loss(batch(), START)
    squared = batch().images.square().flatten(1).sum(dim=1).mean()
    assert torch.allclose(losses.total, squared / 4 + 3 / 2 * squared)
    assert torch.allclose(losses.parts["squared_norm"], squared)


def test_the_decoders_kernels_decay_and_nothing_else_does():
    """(r / 2) ||w||^2 with four weights of 1/2; the vector of fives is a scale."""
    difference = toy(decoder_decay=0.2).loss(batch(), START).total - toy().loss(batch(), START).total
    assert abs(float(difference.detach()) - 0.2 / 2 * 4 * 0.25) < 1e-6


@pytest.mark.parametrize("name", codes(3))
def test_every_parameter_is_optimised_and_every_one_has_a_gradient(name):
    model = convolutional(codes(3)[name])
    (phase,) = model.phases()
    assert {id(p) for p in phase.params.parameters()} == {id(p) for p in model.parameters()}
    with torch.autocast("cpu", torch.bfloat16):
        losses = phase.loss(batch(32, (1, 8, 8)), START)
    assert losses.total.dtype == torch.float32
    losses.total.backward()
    assert all(p.grad is not None and bool(p.grad.any()) for p in model.encoder.parameters() if p.ndim > 1)
    assert all(p.grad is not None and bool(p.grad.any()) for p in model.decoder.parameters() if p.ndim > 1)


@pytest.mark.parametrize("name", codes(3))
def test_it_has_the_capabilities(name):
    model = convolutional(codes(3)[name]).eval()
    assert isinstance(model, Decodes)
    assert isinstance(model, Autoencodes)
    assert isinstance(model, Illustrates)
    (z,) = model.encode(batch(5, (1, 8, 8)).images)
    assert z.shape == (5, *model.latent_shapes[0])
    assert model.decode([z]).shape == (5, 1, 8, 8)


def test_codes_are_means_or_draws():
    """The toy's posterior is N(x, I): draws differ from means by the keys' own normals."""
    model, images, keys = toy(Variational(1.0)), batch().images, Keys(torch.arange(16), 0)
    (mean,), (draw,) = model.encode(images), model.encode(images, randomness=keys)
    assert torch.equal(mean, images.flatten(1))
    assert torch.equal(draw, mean + keys.normal((4,)))


def test_temperature_scales_the_latents():
    z = torch.randn(3, 4)
    assert torch.equal(toy().decode([z], temperature=0.5), toy().decode([0.5 * z]))
    assert not torch.equal(toy().decode([z], temperature=0.5), toy().decode([z]))


@pytest.mark.parametrize("name", codes(3))
def test_reconstructions_stand_beside_their_images(name):
    model, images = convolutional(codes(3)[name]).eval(), batch(6, (1, 8, 8)).images
    picture = model.illustrate(images)["reconstructions"]
    assert picture.columns % 2 == 0
    assert torch.equal(picture.images[::2], images)
    assert torch.allclose(picture.images[1::2], model.decode(model.encode(images)), atol=1e-6)
    assert not picture.images.requires_grad


def test_interpolations_are_straight_lines_in_the_code():
    """With linear networks they are straight lines between reconstructions, between the two images."""
    images = batch(5).images
    picture = toy().illustrate(images)["interpolations"]
    rows = picture.images.unflatten(0, (2, picture.columns))
    for row, (first, last) in zip(rows, ((0, 1), (2, 3))):
        assert torch.equal(row[0], images[first])
        assert torch.equal(row[-1], images[last])
        fraction = torch.linspace(0, 1, picture.columns - 2)[:, None, None, None]
        expected = ((1 - fraction) * images[first] + fraction * images[last]) / 2
        assert torch.allclose(row[1:-1], expected, atol=1e-6)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_a_picture_of_few_images_is_as_wide_as_it_has_to_be(count):
    pictures = toy().illustrate(batch(count).images)
    assert pictures["reconstructions"].columns == 2 * count
    assert ("interpolations" in pictures) == (count > 1)


@pytest.mark.parametrize("arguments", [{"latent": 0}, {"latent": 4, "decoder_decay": -1.0}])
def test_senseless_sizes_are_refused(arguments):
    with pytest.raises(UserError, match=r"model\.latent >= 1"):
        Autoencoder(Flatten, Halve, Plain(), SHAPE, **arguments)


@pytest.mark.parametrize("dataset", ["digits", "fashion_mnist", "cifar10"])
def test_the_four_models_differ_in_their_code_alone(compose, dataset):
    """Networks, code length, recipe and averaging are one; RAE adds its decay and its sampler."""

    def shared(config):
        model = {
            k: v for k, v in config["model"].items() if k not in ("name", "title", "code", "decoder_decay")
        }
        return model, {key: config[key] for key in ("optim", "ema", "trainer", "dataset", "metrics")}

    configs = {name: compose(f"model={name}", f"dataset={dataset}") for name in ("ae", "eae", "vae", "rae")}
    assert all(shared(config) == shared(configs["ae"]) for config in configs.values())
    assert len({config["model"]["code"]["_target_"] for config in configs.values()}) == 4
    assert {name: config["sampler"]["name"] for name, config in configs.items()} == {
        "ae": "decode",
        "eae": "decode",
        "vae": "decode",
        "rae": "fitted_prior",
    }
    decays = {name: config["model"]["decoder_decay"] for name, config in configs.items()}
    assert decays.pop("rae") > 0
    assert set(decays.values()) == {0.0}
    assert all("autoencoder" not in config for config in configs.values())
