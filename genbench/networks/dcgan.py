"""A pair of plain convolutional networks for GANs, after DCGAN (Radford, Metz & Chintala 2016).

    generator   z -> Linear -> [widths[0], base, base] -> (BN ReLU, transposed conv 4x4 stride 2)* -> tanh
    critic      x -> conv 3x3 -> (conv 4x4 stride 2, leaky ReLU)* -> features -> one number

Every entry of `widths` is a doubling or a halving: three of them make 4 -> 8 -> 16 -> 32, two of them
7 -> 14 -> 28. The critic has no batch normalisation: its penalties and bounds are statements about single
images.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genbench.contracts import UserError
from genbench.networks.conditional import conditional_batch_norm
from genbench.networks.critic import Critic, Projection
from genbench.networks.initialisation import drawn

EMBEDDING = 64
"""Size of the class embedding that conditional normalisation is told."""


def base_size(height: int, width: int, doublings: int) -> int:
    """The side of the square feature map from which `doublings` doublings reach an image; 7 for 28 and two.

    Raises UserError for images that are not square, or not a multiple of 2^doublings.
    """
    if height != width or height % 2**doublings:
        raise UserError(
            f"{doublings} doublings cannot end at images of {height}x{width}: their sides must be equal and "
            f"a multiple of {2**doublings}. Choose another number of stages."
        )
    return height // 2**doublings


def class_embedding(classes: int) -> nn.Embedding | None:
    """Embeddings of `classes` classes; None for none."""
    return nn.Embedding(classes, EMBEDDING) if classes else None


class PlainGenerator(nn.Module):
    """Latents [B, latent] and labels to images [B, C, H, W] in [-1, 1].

    widths: channels before each doubling; classes: 0 for an unconditional generator.
    """

    def __init__(
        self,
        image_shape: Sequence[int],
        latent: int,
        widths: Sequence[int] = (256, 128, 64),
        classes: int = 0,
    ) -> None:
        super().__init__()
        channels, height, width = image_shape
        self.base = base_size(height, width, len(widths))
        self.classes = class_embedding(classes)
        told = EMBEDDING if classes else 0
        self.stem = drawn(nn.Linear(latent, widths[0] * self.base**2))
        self.norms = nn.ModuleList(conditional_batch_norm(width, told) for width in widths)
        outputs = [*widths[1:], channels]
        self.doublings = nn.ModuleList(
            drawn_transposed(nn.ConvTranspose2d(inside, outside, 4, stride=2, padding=1))
            for inside, outside in zip(widths, outputs, strict=True)
        )

    def forward(self, latents: Tensor, labels: Tensor | None = None) -> Tensor:
        condition = None if self.classes is None or labels is None else self.classes(labels)
        hidden = self.stem(latents).unflatten(1, (-1, self.base, self.base))
        hidden = hidden.contiguous(memory_format=torch.channels_last)
        for norm, doubling in zip(self.norms, self.doublings, strict=True):
            hidden = doubling(F.relu(norm(hidden, condition)))
        return torch.tanh(hidden).contiguous()


class PlainCritic(Critic):
    """The critic above.

    widths: channels after each halving, from the image's size down.
    """

    def __init__(
        self, image_shape: Sequence[int], widths: Sequence[int] = (64, 128, 256), classes: int = 0
    ) -> None:
        super().__init__()
        channels, height, width = image_shape
        base = base_size(height, width, len(widths))
        self.stem = drawn(nn.Conv2d(channels, widths[0], 3, padding=1))
        inputs = [widths[0], *widths[:-1]]
        self.halvings = nn.ModuleList(
            drawn(nn.Conv2d(inside, outside, 4, stride=2, padding=1))
            for inside, outside in zip(inputs, widths, strict=True)
        )
        self.head = Projection(widths[-1] * base**2, classes)

    def features(self, images: Tensor) -> Tensor:
        hidden = F.leaky_relu(self.stem(images.contiguous(memory_format=torch.channels_last)), 0.2)
        for halving in self.halvings:
            hidden = F.leaky_relu(halving(hidden), 0.2)
        return hidden.flatten(1)


def drawn_transposed(layer: nn.ConvTranspose2d) -> nn.ConvTranspose2d:
    """`layer` with uniform weights of variance 2 / (fan in + fan out), its stride counted, and no bias.

    An output pixel of a transposed convolution of stride s sums over 1/s^2 of the kernel's positions only.
    """
    nn.init.xavier_uniform_(layer.weight, gain=float(layer.stride[0]))
    assert layer.bias is not None
    nn.init.zeros_(layer.bias)
    return layer
