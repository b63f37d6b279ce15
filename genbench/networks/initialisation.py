"""How layers start: as in the code of Ho et al. (2020), of which other networks take parts.

Weights are uniform with variance 2 / (fan in + fan out) (Glorot & Bengio 2010; "variance scaling, fan
average, uniform" in that code) and biases zero. The last layer of every residual branch, and of the network,
starts at zero, so that the network starts as its shortcuts and its output as nothing.
"""

from __future__ import annotations

from typing import TypeVar

from torch import nn

Layer = TypeVar("Layer", nn.Conv2d, nn.Linear)


def drawn(layer: Layer) -> Layer:
    """`layer` with uniform weights of variance 2 / (fan in + fan out) and no bias to begin with."""
    nn.init.xavier_uniform_(layer.weight)
    return without_bias(layer)


def drawn_in_parts(layer: nn.Linear, parts: list[int]) -> nn.Linear:
    """`layer` as several layers side by side, of `parts` outputs each, every one drawn by its own fan out."""
    for weight in layer.weight.detach().split(parts):
        nn.init.xavier_uniform_(weight)
    return without_bias(layer)


def zeroed(layer: Layer) -> Layer:
    """`layer` with all parameters at zero: the end of a branch that starts as nothing."""
    nn.init.zeros_(layer.weight)
    return without_bias(layer)


def without_bias(layer: Layer) -> Layer:
    """`layer` with its bias, if it has one, at zero."""
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


def convolution(channels: int, out_channels: int, size: int = 3, stride: int = 1) -> nn.Conv2d:
    """A drawn convolution of odd `size` that keeps an image's size, or divides it by `stride`."""
    return drawn(nn.Conv2d(channels, out_channels, size, stride=stride, padding=size // 2))
