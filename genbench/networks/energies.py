"""Networks that give an image one number: energies, or log-densities up to a constant. [B, C, H, W] -> [B].

    ResidualEnergy     stem -> residual blocks -> quadratic head          (MDSM: Li, Chen & Sommer 2019)
    PlainEnergy        convolutions and average pooling -> linear layers  (DDE: Bigdeli et al. 2020)
    PerceptronEnergy   linear layers, each of which sees all the ones before it   (DDE, for few dimensions)

What is trained is the *gradient* of these in the image, so what trains it is their second derivative. With
ReLU that is zero wherever it exists: a kink's place would have to move, and no gradient says so. Hence ELU,
swish or softplus, which `require_curved` insists on. There is no normalisation: batch normalisation would
let images see each other, and any kind makes the second derivative dear and erratic.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrize import register_parametrization

from genbench.contracts import UserError
from genbench.networks.dcgan import base_size
from genbench.networks.initialisation import Layer, without_bias


def require_curved(activation: nn.Module) -> nn.Module:
    """`activation`; UserError where its second derivative is zero on all of a fine grid, as ReLU's is."""
    with torch.inference_mode(False), torch.enable_grad():
        x = torch.linspace(-3, 3, 100, dtype=torch.float64).requires_grad_(True)
        slope = torch.autograd.grad(activation(x).sum(), x, create_graph=True)[0]
        # A slope that is a constant has no graph at all.
        curvature = torch.autograd.grad(slope.sum(), x)[0] if slope.requires_grad else torch.zeros_like(x)
    if not curvature.any():
        raise UserError(
            f"an energy network trains its gradient and needs an activation with a second derivative; "
            f"{type(activation).__name__} has none. Type energy_network.activation._target_=torch.nn.ELU, "
            f"torch.nn.SiLU or torch.nn.Softplus."
        )
    return activation


def gain(activation: nn.Module) -> float:
    """1 / rms f(z) for z ~ N(0, 1), by which weights keep the size of what they pass on; sqrt(2) for ReLU."""
    z = torch.linspace(-8, 8, 4001, dtype=torch.float64)
    density = torch.exp(-0.5 * z.square())
    with torch.no_grad():
        square = (activation(z).square() * density).sum() / density.sum()
    return float(square.rsqrt())


class EnergyBlock(nn.Module):
    """x' + conv(f(conv(f(x)))), [B, inputs, H, W] to [B, outputs, H, W], or half that size where `halve`.

    Sizes are halved by averaging, on the shortcut x' too, which is a 1x1 convolution where the widths differ.
    share: the variance of the branch at the start, as a part of the shortcut's.
    """

    def __init__(self, inputs: int, outputs: int, halve: bool, activation: nn.Module, share: float) -> None:
        super().__init__()
        self.halve = halve
        self.activation = activation
        kept = gain(activation)
        self.conv_in = weighted(nn.Conv2d(inputs, inputs, 3, padding=1, bias=False), kept)
        self.conv_out = weighted(nn.Conv2d(inputs, outputs, 3, padding=1), kept * share**0.5)
        self.shortcut = nn.Identity() if inputs == outputs else weighted(nn.Conv2d(inputs, outputs, 1))

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.conv_out(self.activation(self.conv_in(self.activation(x))))
        # A 1x1 convolution commutes with averaging pixels and is four times cheaper after it.
        return self.shortcut(self._down(x)) + self._down(hidden)

    def _down(self, x: Tensor) -> Tensor:
        return F.avg_pool2d(x, 2) if self.halve else x


class QuadraticHead(nn.Module):
    """(w1 . h)(w2 . h) + w3 . h^2, each with a constant: features [B, F] to [B].

    Far from the data an energy must grow as the square of the distance, for any noise level at once; a linear
    head over features that grow linearly could not.
    """

    def __init__(self, features: int) -> None:
        super().__init__()
        self.first = weighted(nn.Linear(features, 1))
        self.second = weighted(nn.Linear(features, 1))
        self.squares = weighted(nn.Linear(features, 1))

    def forward(self, h: Tensor) -> Tensor:
        return (self.first(h) * self.second(h) + self.squares(h.square())).squeeze(1)


class ResidualEnergy(nn.Module):
    """The residual network of MDSM, sized by its arguments.

    channels: of the stem, a 3x3 convolution at the image's size; multipliers: of `channels`, the first being
    the stem's; each further one is a stage that starts by halving the size; blocks: residual blocks a stage.
    Four multipliers (1, 2, 4, 8) with three blocks are the reference's "Res18", with two its "Res12". Images
    of 28x28 need no padding to 32 if there are three multipliers: 28 -> 14 -> 7.

    activation: default ELU. At the start the branches together add as much variance as the shortcuts carry,
    so that depth does not set the size of the energy.
    """

    def __init__(
        self,
        image_shape: Sequence[int],
        channels: int = 128,
        multipliers: Sequence[int] = (1, 2, 4, 8),
        blocks: int = 3,
        activation: nn.Module | None = None,
    ) -> None:
        super().__init__()
        colours, height, width = image_shape
        base = base_size(height, width, len(multipliers) - 1)
        activation = require_curved(activation or nn.ELU())
        widths = [channels * multiplier for multiplier in multipliers]
        self.stem = weighted(nn.Conv2d(colours, widths[0], 3, padding=1))
        share = 1 / ((len(widths) - 1) * blocks)
        stages = [
            EnergyBlock(outside if number else inside, outside, number == 0, activation, share)
            for inside, outside in pairwise(widths)
            for number in range(blocks)
        ]
        self.blocks = nn.Sequential(*stages)
        self.head = QuadraticHead(widths[-1] * base**2)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.blocks(self.stem(images)).flatten(1))


class PlainEnergy(nn.Module):
    """Convolutions of 3x3 and an activation, then linear layers with the same, then one number.

    widths: channels after each convolution, none for a plain perceptron; halve: whether an average over 2x2
    pixels follows it; hidden: widths of the linear layers but the last; activation: default swish;
    equalised: see `weighted`. The defaults are the network for 32x32 images of DDE's co-author (code).
    """

    def __init__(
        self,
        image_shape: Sequence[int],
        widths: Sequence[int] = (32, 64, 64, 128, 128, 256, 256, 512, 512),
        halve: Sequence[bool] = (False, True, False, True, False, True, False, True, False),
        hidden: Sequence[int] = (512,),
        activation: nn.Module | None = None,
        equalised: bool = True,
    ) -> None:
        super().__init__()
        if len(widths) != len(halve):
            raise UserError(
                f"an energy network says for each convolution whether its size is halved after it, found "
                f"{len(widths)} widths and {len(halve)} entries of halve"
            )
        colours, height, width = image_shape
        base = base_size(height, width, sum(halve))
        activation = require_curved(activation or nn.SiLU())
        kept = gain(activation)
        layers: list[nn.Module] = []
        for inside, outside, down in zip([colours, *widths], widths, halve):
            layers += [weighted(nn.Conv2d(inside, outside, 3, padding=1), kept, equalised), activation]
            layers += [nn.AvgPool2d(2)] if down else []
        layers += [nn.Flatten()]
        flat = [colours, *widths][-1] * base**2
        for inside, outside in zip([flat, *hidden], hidden):
            layers += [weighted(nn.Linear(inside, outside), kept, equalised), activation]
        self.body = nn.Sequential(*layers)
        self.head = weighted(nn.Linear([flat, *hidden][-1], 1), equalised=equalised)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.body(images)).squeeze(1)


class PerceptronEnergy(nn.Module):
    """Linear layers over the flattened image, densely connected: each sees the image and all layers before.

    width: outputs of each hidden layer; layers: how many; activation: default softplus. The last layer sees
    everything, so that it is linear in the image itself. DDE's for MNIST has 16 layers of 256.
    """

    def __init__(
        self,
        image_shape: Sequence[int],
        width: int = 256,
        layers: int = 16,
        activation: nn.Module | None = None,
    ) -> None:
        super().__init__()
        pixels = math.prod(image_shape)
        self.activation = require_curved(activation or nn.Softplus())
        self.layers = nn.ModuleList(
            weighted(nn.Linear(pixels + number * width, width)) for number in range(layers)
        )
        self.head = weighted(nn.Linear(pixels + layers * width, 1))

    def forward(self, images: Tensor) -> Tensor:
        seen = images.flatten(1)
        for layer in self.layers:
            seen = torch.cat([seen, self.activation(layer(seen))], dim=1)
        return self.head(seen).squeeze(1)


class Scaled(nn.Module):
    """The weight a layer uses is its parameter times `scale`."""

    def __init__(self, scale: float) -> None:
        super().__init__()
        self.scale = scale

    def forward(self, weight: Tensor) -> Tensor:
        return weight * self.scale


def weighted(layer: Layer, size: float = 1.0, equalised: bool = False) -> Layer:
    """`layer` with weights N(0, size^2 / fan in) and no bias to begin with.

    equalised: the parameter itself is N(0, 1) and the scale is applied at every use (Karras et al. 2018,
    section 4.1), so that one learning rate of Adam's means the same relative change in every layer. Learning
    rates published for such networks are of no use to others, and theirs of none to these.
    """
    scale = size / math.sqrt(layer.weight[0].numel())
    nn.init.normal_(layer.weight, std=1.0 if equalised else scale)
    if equalised:
        register_parametrization(layer, "weight", Scaled(scale))
    return without_bias(layer)
