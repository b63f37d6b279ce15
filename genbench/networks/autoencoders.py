"""Convolutional encoder and decoder, for images of 8, 28, 32, 64 pixels and whatever divides likewise.

    encoder    for each width: 4x4 convolution of stride 2, BN, ReLU;           then Linear to the code
    decoder    Linear to widths[0] channels at the smallest size;
               for each further width: 4x4 transposed convolution of stride 2 (twice the size), BN, ReLU;
               then a 4x4 transposed convolution of stride `last_stride` to the image's channels, and tanh

With a kernel of 4 at stride 2 every pixel is covered by as many kernel entries as every other, which is what
keeps transposed convolutions from drawing checkerboards. With widths 128-256-512-1024 and 1024-512-256,
`last_stride` 1 and `base_norm` off, these are the networks for CIFAR-10 of the RAE paper (Ghosh et al. 2020)
but for the range of images: their sigmoid to [0, 1] is here tanh to [-1, 1].
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from genbench.errors import UserError

KERNEL, STRIDE, PADDING = 4, 2, 1
"""Halves (rounding down) or doubles a size exactly."""


class ConvEncoder(nn.Module):
    """Images [B, C, H, W] in [-1, 1] to [B, outputs].

    image_shape: (C, H, W); outputs: numbers an image; widths: channels of each stage, each half the size of
    the one before. Raises UserError where the image has no pixel left after so many stages.
    """

    def __init__(self, image_shape: Sequence[int], outputs: int, widths: Sequence[int]) -> None:
        super().__init__()
        channels, height, width = image_shape
        rows, columns = height >> len(widths), width >> len(widths)
        if min(rows, columns) < 1:
            raise UserError(
                f"an encoder of {len(widths)} stages halves images of {height}x{width} to nothing; "
                "give autoencoder.encoder.widths fewer"
            )
        layers: list[nn.Module] = []
        for wide in widths:
            layers += [nn.Conv2d(channels, wide, KERNEL, STRIDE, PADDING), nn.BatchNorm2d(wide), nn.ReLU()]
            channels = wide
        self.body = nn.Sequential(*layers)
        self.head = nn.Linear(channels * rows * columns, outputs)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.body(images).flatten(1))


class ConvDecoder(nn.Module):
    """Codes [B, latent] to images [B, C, H, W] in (-1, 1).

    image_shape: (C, H, W); latent: d; widths: channels at each size, smallest first; last_stride: 2 where the
    last layer doubles the size once more, 1 where it keeps it (dearer: there are then widths[-1] channels at
    full size); base_norm: whether BN and ReLU follow the linear layer too. Raises UserError where H or W
    cannot be halved as often as the decoder doubles.
    """

    def __init__(
        self,
        image_shape: Sequence[int],
        latent: int,
        widths: Sequence[int],
        last_stride: int = 2,
        base_norm: bool = True,
    ) -> None:
        super().__init__()
        channels, height, width = image_shape
        if last_stride not in (1, STRIDE):
            raise UserError(f"autoencoder.decoder.last_stride={last_stride}: type 1 or {STRIDE}")
        doublings = len(widths) - 1 + (last_stride == STRIDE)
        factor = STRIDE**doublings
        if height % factor or width % factor:
            raise UserError(
                f"a decoder of {len(widths)} widths and last_stride={last_stride} doubles {doublings} times; "
                f"images of {height}x{width} cannot be halved as often; give autoencoder.decoder.widths fewer"
            )
        base = widths[0]
        self.base_shape = (base, height // factor, width // factor)
        self.head = nn.Linear(latent, base * self.base_shape[1] * self.base_shape[2])
        layers: list[nn.Module] = [nn.BatchNorm2d(base), nn.ReLU()] if base_norm else []
        for wide in widths[1:]:
            layers += [
                nn.ConvTranspose2d(base, wide, KERNEL, STRIDE, PADDING),
                nn.BatchNorm2d(wide),
                nn.ReLU(),
            ]
            base = wide
        layers += [_last(base, channels, last_stride), nn.Tanh()]
        self.body = nn.Sequential(*layers)

    def forward(self, z: Tensor) -> Tensor:
        return self.body(self.head(z).unflatten(1, self.base_shape))


def _last(inputs: int, outputs: int, stride: int) -> nn.Module:
    """The 4x4 transposed convolution to the image.

    One of stride 1 is a convolution with its kernel turned round. An even kernel has no centre: keeping the
    size takes one more row and column of padding on one side than on the other.
    """
    if stride == STRIDE:
        return nn.ConvTranspose2d(inputs, outputs, KERNEL, STRIDE, PADDING)
    before, after = (KERNEL - 1) // 2, KERNEL // 2
    return nn.Sequential(nn.ZeroPad2d((before, after, before, after)), nn.Conv2d(inputs, outputs, KERNEL))
