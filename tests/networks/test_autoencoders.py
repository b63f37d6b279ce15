"""The convolutional encoder and decoder: sizes, the published networks, range."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from genbench.errors import UserError
from genbench.networks.autoencoders import ConvDecoder, ConvEncoder


@pytest.mark.parametrize(
    ("shape", "encoder", "decoder", "last_stride"),
    [
        ((1, 8, 8), [4, 6], [6, 4], 2),
        ((1, 8, 8), [4, 6, 8], [6, 4], 1),
        ((1, 28, 28), [4, 6], [6, 4], 2),
        ((1, 28, 28), [4, 6, 8], [8, 6, 4], 1),  # 28 -> 14 -> 7 -> 3, and 7 -> 14 -> 28
        ((3, 32, 32), [4, 6, 8], [8, 6, 4], 2),
        ((3, 64, 64), [4, 6, 8, 8], [8, 8, 6, 4], 2),
        ((3, 64, 48), [4, 6], [6, 4], 2),
    ],
)
def test_codes_and_images_have_the_stated_shapes(shape, encoder, decoder, last_stride):
    images = torch.rand(2, *shape) * 2 - 1
    codes = ConvEncoder(shape, 10, encoder)(images)
    decoded = ConvDecoder(shape, 10, decoder, last_stride)(codes)
    assert codes.shape == (2, 10)
    assert decoded.shape == images.shape


def test_every_pixel_and_every_coordinate_matters():
    """The encoder sees the whole image and each coordinate of a code reaches every pixel."""
    images = torch.randn(4, 1, 8, 8, requires_grad=True)
    encoder, decoder = ConvEncoder((1, 8, 8), 3, [8, 8]).eval(), ConvDecoder((1, 8, 8), 3, [8, 8]).eval()
    encoder(images).sum().backward()
    assert images.grad is not None
    assert (images.grad != 0).any(dim=0).all()
    base = decoder(torch.zeros(1, 3))
    moved = decoder(torch.cat([3 * torch.eye(3), -3 * torch.eye(3)]))
    assert ((moved - base).abs() > 0).reshape(2, 3, -1).any(dim=0).all()


def test_images_stay_in_range():
    decoded = ConvDecoder((1, 8, 8), 4, [16, 8])(1000 * torch.randn(50, 4))
    assert float(decoded.detach().abs().max()) <= 1
    assert float(decoded.detach().abs().max()) > 0.5


def convolution(inputs: int, outputs: int) -> int:
    return inputs * outputs * 16 + outputs


def test_the_networks_of_the_rae_paper_come_out_of_the_configuration(compose):
    """Encoder: four 4x4 convolutions of stride 2 to 128, 256, 512 and 1024 channels, then Linear(4096, d).

    Decoder: Linear to 8x8x1024, transposed convolutions to 512 and 256, then to 3 channels.
    """
    from hydra.utils import instantiate

    model = compose("model=rae", "dataset=cifar10", "recipe=none", "autoencoder=rae_cifar")["model"]
    latent = 128
    encoder, decoder = (
        instantiate(model["encoder"])(outputs=latent),
        instantiate(model["decoder"])(latent=latent),
    )
    norms = 2 * (128 + 256 + 512 + 1024)
    expected = convolution(3, 128) + convolution(128, 256) + convolution(256, 512) + convolution(512, 1024)
    assert sum(p.numel() for p in encoder.parameters()) == expected + norms + (4096 + 1) * latent
    linear = (latent + 1) * 8 * 8 * 1024
    expected = linear + convolution(1024, 512) + convolution(512, 256) + convolution(256, 3) + 2 * (512 + 256)
    assert sum(p.numel() for p in decoder.parameters()) == expected
    sizes: dict[str, tuple[int, ...]] = {}
    for name, module in decoder.named_modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            module.register_forward_hook(lambda m, i, o, name=name: sizes.update({name: tuple(o.shape[1:])}))
    with torch.no_grad():
        decoder.eval()(torch.zeros(1, latent))
    assert list(sizes.values()) == [(512, 16, 16), (256, 32, 32), (3, 32, 32)]


def test_a_last_layer_of_stride_one_is_a_transposed_convolution():
    """As published: the same sum, with the kernel turned round, cropped to the size of its input."""
    decoder = ConvDecoder((2, 8, 8), 3, [4], last_stride=1, base_norm=False).double()
    last = decoder.body[0]
    x = torch.randn(1, 4, 8, 8, dtype=torch.float64)
    turned = last[1].weight.flip(2, 3).transpose(0, 1)
    whole = nn.functional.conv_transpose2d(x, turned, last[1].bias)
    assert torch.allclose(last(x), whole[:, :, 2:-1, 2:-1], rtol=0, atol=1e-12)


def test_an_image_that_cannot_be_halved_as_often_is_refused():
    with pytest.raises(UserError, match="widths fewer"):
        ConvEncoder((1, 8, 8), 4, [4, 4, 4, 4])
    with pytest.raises(UserError, match="widths fewer"):
        ConvDecoder((1, 28, 28), 4, [4, 4, 4], last_stride=2)
    with pytest.raises(UserError, match="last_stride=3"):
        ConvDecoder((1, 28, 28), 4, [4, 4], last_stride=3)
