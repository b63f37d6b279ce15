"""The gradient of a scalar function of images, wherever it is asked for: in a loss, or while sampling."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def gradient(function: Callable[[Tensor], Tensor], x: Tensor, create_graph: bool = False) -> Tensor:
    """The gradient of each f(x_i) in x_i for f: [B, ...] -> [B] whose rows do not see each other; [B, ...].

    x: float32 or float64, taken as a constant. With `create_graph` the gradient can be differentiated in the
    weights of `function`, and so be trained; without, it is a plain tensor.

    Computed outside autocast, because a gradient's gradient in bfloat16 is mostly noise, and inside
    `torch.inference_mode` too, where samplers run: that mode is left for the duration, on a copy of x (a
    tensor made in it can never enter a graph).
    """
    with (
        torch.inference_mode(False),
        torch.enable_grad(),
        torch.autocast(x.device.type, enabled=False),
    ):
        point = x.detach().clone().requires_grad_(True)
        # Rows do not see each other, so the gradient of the sum holds each row's own.
        return torch.autograd.grad(function(point).sum(), point, create_graph=create_graph)[0]
