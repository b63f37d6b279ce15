"""Small critics for estimating a divergence from samples: samples in, one number each out.

All start at zero, which as a log density ratio says that P and Q are equal: a critic that has learnt nothing
claims nothing.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


class Standardise(nn.Module):
    """(x - mean) / std with the statistics of the samples [n, ...] it is made from.

    They are taken for each coordinate of vectors, and for each channel of images.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, samples: Tensor) -> None:
        super().__init__()
        axes = (0, 2, 3) if samples.ndim == 4 else (0,)
        std, mean = torch.std_mean(samples.double(), dim=axes, keepdim=True)
        std = torch.where(std > 0, std, 1.0)  # a coordinate that never varies tells nothing and becomes zero
        self.register_buffer("mean", mean.to(samples.dtype))
        self.register_buffer("std", std.to(samples.dtype))

    def forward(self, x: Tensor) -> Tensor:
        return (x - self.mean) / self.std


class Limit(nn.Module):
    """Clips outputs to [low, high] in evaluation mode; in training a clipped output would learn nothing."""

    def __init__(self, low: float, high: float) -> None:
        super().__init__()
        self.low, self.high = low, high

    def forward(self, output: Tensor) -> Tensor:
        return output if self.training else output.clamp(self.low, self.high)


class VectorCritic(nn.Module):
    """[B, ...] to [B]: a linear function plus a perceptron of two hidden layers.

    Between Gaussians of one covariance log p/q is linear, which the perceptron alone would learn slowly.
    """

    def __init__(self, shape: tuple[int, ...], width: int = 64) -> None:
        super().__init__()
        size = math.prod(shape)
        self.linear = nn.Linear(size, 1)
        self.hidden = nn.Sequential(nn.Linear(size, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU())
        self.out = nn.Linear(width, 1, bias=False)
        for parameter in (*self.linear.parameters(), *self.out.parameters()):
            nn.init.zeros_(parameter)

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(1) if x.ndim > 1 else x[:, None]
        return (self.linear(x) + self.out(self.hidden(x))).squeeze(1)


class ImageCritic(nn.Module):
    """[B, C, H, W] to [B]: convolutions that halve the image until 4 pixels a side or fewer are left.

    width: channels after the first convolution; they double with each, up to eight times.
    """

    def __init__(self, shape: tuple[int, ...], width: int = 32) -> None:
        super().__init__()
        channels, *sides = shape
        layers: list[nn.Module] = [nn.Conv2d(channels, width, 3, padding=1), nn.SiLU()]
        found = width
        while max(sides) > 4:
            wider = min(2 * found, 8 * width)
            layers += [nn.Conv2d(found, wider, 3, stride=2, padding=1), nn.SiLU()]
            found, sides = wider, [-(-side // 2) for side in sides]
        self.body = nn.Sequential(*layers, nn.Flatten())
        self.out = nn.Linear(found * math.prod(sides), 1)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.body(x)).squeeze(1)
