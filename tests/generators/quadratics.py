"""Stand-ins for energy networks: a quadratic with one trainable number, and data to train it on."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from genbench.contracts import Batch, Step

SHAPE = (1, 1, 1)
NOW = Step(0, 1)


class Quadratic(nn.Module):
    """value(x) = (k / 2) ||x - centre||^2 + constant; k can be trained."""

    def __init__(self, k: float, centre: float = 0.0, constant: float = 0.0) -> None:
        super().__init__()
        self.k = nn.Parameter(torch.tensor(k))
        self.centre, self.constant = centre, constant

    def forward(self, x: Tensor) -> Tensor:
        return self.k / 2 * (x - self.centre).square().flatten(1).sum(dim=1) + self.constant


def batch(images: Tensor) -> Batch:
    return Batch(images, None, torch.arange(len(images)))


def gaussian(count: int, std: float = 1.0, mean: float = 0.0, shape: tuple[int, ...] = SHAPE) -> Batch:
    return batch(mean + std * torch.randn(count, *shape))


def vertex(loss, parameter: nn.Parameter) -> tuple[float, float]:
    """(where, how low) the parabola that `loss` is in `parameter` has its minimum; draws are held fixed."""
    values = []
    for value in (-1.0, 0.0, 1.0):
        with torch.no_grad():
            parameter.fill_(value)
        torch.manual_seed(1)
        values.append(loss().total.detach().double())
    below, middle, above = values
    slope, curvature = (above - below) / 2, above + below - 2 * middle
    return float(-slope / curvature), float(middle - slope**2 / (2 * curvature))
