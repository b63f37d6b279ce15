"""Autoencoders: an encoder, a code, a decoder, and the error of bringing an image through all three.

    L = E ||x - D(z)||^2 + penalty(z) + (r / 2) ||theta_D||^2,     z = code(E(x))

with images in [-1, 1], the square summed over pixels, and theta_D the kernels of the decoder. The code (see
`genbench.generators.codes`) makes this an AE, a RAE, a VAE or an EAE, and is all in which they differ.
Samples are D(z) for z ~ N(0, I), or for z from a law fitted to codes afterwards (`FittedPrior`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from genbench.contracts import Batch, Generator, Losses, Phase, Picture, Step, UserError
from genbench.generators.codes import Code
from genbench.ops.random import Randomness

COLUMNS = 8
"""Of a picture of reconstructions (four pairs a row), and codes along one interpolation, ends included."""


class Autoencoder(Generator):
    """Encoder, code and decoder trained together.

    encoder: given `outputs`, makes the network [B, C, H, W] -> [B, outputs]; decoder: given `latent`, makes
    the network [B, latent] -> [B, C, H, W]; code: what stands between; image_shape: (C, H, W); latent: d,
    the dimension of the code; decoder_decay: r above, the other half of RAE-L2 (Ghosh et al. 2020). The decay
    is part of the loss, so Adam rescales it with the rest; biases and the scales of batch normalisation go
    free, for they set the range of the output.
    """

    def __init__(
        self,
        encoder: Callable[..., nn.Module],
        decoder: Callable[..., nn.Module],
        code: Code,
        image_shape: Sequence[int],
        latent: int,
        decoder_decay: float = 0.0,
    ) -> None:
        super().__init__()
        if latent < 1 or decoder_decay < 0:
            raise UserError(
                f"an autoencoder needs model.latent >= 1 and model.decoder_decay >= 0, found {latent} and "
                f"{decoder_decay}"
            )
        self.encoder = encoder(outputs=latent * code.outputs_per_dimension)
        self.decoder = decoder(latent=latent)
        self.code = code
        channels, height, width = image_shape
        self.image_shape = (channels, height, width)
        self.latent_shapes = ((latent,),)
        self.decoder_decay = decoder_decay

    def phases(self) -> Sequence[Phase]:
        return [Phase("autoencoder", self, self.loss)]

    def loss(self, batch: Batch, step: Step) -> Losses:
        """L above; logs the squared error an image, and what the code says of itself."""
        z, penalty, parts = self.code(self.encoder(batch.images), step)
        error = (batch.images - self.decoder(z).float()).square().flatten(1).sum(dim=1).mean()
        total = error + penalty
        if self.decoder_decay:
            kernels = [p.square().sum() for p in self.decoder.parameters() if p.ndim > 1]
            total = total + self.decoder_decay / 2 * torch.stack(kernels).sum()
        return Losses(total, {"reconstruction": error, **parts})

    def encode(
        self, images: Tensor, labels: Tensor | None = None, randomness: Randomness | None = None
    ) -> Sequence[Tensor]:
        """The codes of images, one [B, d]: draws with `randomness` (which serves B images), else means."""
        h = self.encoder(images)
        return [self.code.mean(h) if randomness is None else self.code.draw(h, randomness)]

    def decode(
        self, latents: Sequence[Tensor], labels: Tensor | None = None, temperature: float = 1.0
    ) -> Tensor:
        (z,) = latents
        return self.decoder(temperature * z).float()

    @torch.no_grad()
    def illustrate(self, images: Tensor, labels: Tensor | None = None) -> Mapping[str, Picture]:
        """Of test images: "reconstructions", and "interpolations" where there are two images or more.

        Reconstructions: each image, then its own, in pairs. A row of interpolations: an image, D of eight
        codes on the straight line from its code to that of the next image, and that image.
        """
        (z,) = self.encode(images)
        pairs = torch.stack([images, self.decode([z])], dim=1).flatten(0, 1)
        pictures = {"reconstructions": Picture(pairs, min(COLUMNS, len(pairs)))}
        if rows := len(images) // 2:
            first, last = slice(0, 2 * rows, 2), slice(1, 2 * rows, 2)
            fraction = torch.linspace(0, 1, COLUMNS, device=z.device)[:, None]
            line = torch.lerp(z[first, None], z[last, None], fraction)
            between = self.decode([line.flatten(0, 1)]).unflatten(0, (rows, COLUMNS))
            row = torch.cat([images[first, None], between, images[last, None]], dim=1)
            pictures["interpolations"] = Picture(row.flatten(0, 1), COLUMNS + 2)
        return pictures
