"""The likelihood of the probability-flow ODE, exact but for the solver and the trace (Song et al. 2021, D.2).

    log p_0(x(0)) = log p_1(x(1)) + integral from 0 to 1 of div u(x(t), t) dt,      dx/dt = u(x, t)

The divergence is estimated as e' (du/dx) e with one Rademacher e an image, fixed along its whole solve
(Hutchinson 1989; Grathwohl et al. 2019), or computed exactly, which costs a backward pass a dimension.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from genbench.contracts import UserError
from genbench.corruptions.gaussian import Gaussian
from genbench.likelihood.dequantisation import bits_per_dim, dequantised
from genbench.ops.random import Randomness, Stream
from genbench.samplers.ode import velocity
from genbench.samplers.runge_kutta import dormand_prince


class ODELikelihood:
    """Bits per dimension of images under a denoiser of Gaussian corruption.

    rtol, atol: of the adaptive solver; start: the time at which the data is taken to be, since at t = 0 the
    ODE of some corruptions is singular (1e-5, or 1/T of discrete times, unless given); end: the last time (1,
    or .999 where no data is left at 1); exact: compute the divergence instead of estimating it.
    """

    name = "bpd"

    def __init__(
        self,
        rtol: float = 1e-5,
        atol: float = 1e-5,
        start: float | None = None,
        end: float | None = None,
        exact: bool = False,
    ) -> None:
        self.rtol, self.atol, self.start, self.end, self.exact = rtol, atol, start, end, exact

    def check(self, model: Any) -> None:
        """Raises UserError where the model has no probability-flow ODE."""
        if not isinstance(getattr(model, "corruption", None), Gaussian):
            raise UserError(
                "metrics=likelihood integrates the ODE of a Gaussian corruption, and this model "
                "has none. Leave likelihood out of metrics, "
                "or type likelihood=categorical where the model is one of grey levels."
            )

    def __call__(self, model: Any, images: Tensor, levels: int, randomness: Randomness) -> Tensor:
        """Bits per dimension, float64 [B], of images [B, C, H, W] in [-1, 1] of so many grey levels."""
        x = dequantised(images, levels, randomness)
        return bits_per_dim(self.log_density(model, x, randomness), x[0].numel(), levels)

    def log_density(self, model: Any, x: Tensor, randomness: Randomness) -> Tensor:
        """log p(x) in nats, float64 [B]."""
        corruption = model.corruption
        shape, dimensions = x.shape[1:], x[0].numel()
        signs = randomness.uniform(shape, stream=Stream.PROBE).round().mul_(2).sub_(1).to(x.dtype)

        def derivative(state: Tensor, t: Tensor, rows: Tensor) -> Tensor:
            image = state[:, :dimensions].unflatten(1, shape)
            slope, divergence = self._divergence(model, image, t, probe[rows], corruption)
            return torch.cat([slope.flatten(1), divergence[:, None]], dim=1)

        # Samplers and scores are called in inference mode, whose tensors no gradient can pass.
        with torch.inference_mode(False):
            probe = signs.clone()
            begin = torch.cat([x.flatten(1), x.new_zeros(len(x), 1)], dim=1).clone()
            state = dormand_prince(derivative, begin, *self._times(corruption), self.rtol, self.atol)
        last, gained = state[:, :dimensions].double(), state[:, dimensions].double()
        # The law at the end: the prior sampling starts from, or, short of t = 1, its scale at that time.
        _, end = self._times(corruption)
        at_end = corruption.sigma(torch.tensor(end, dtype=torch.float64))
        std = corruption.schedule.terminal_std if end == 1 else float(at_end)
        prior = -0.5 * (last / std).square().sum(1) - dimensions * math.log(std * math.sqrt(2 * math.pi))
        return prior + gained

    def _times(self, corruption: Gaussian) -> tuple[float, float]:
        """(start, end), as given or as the corruption needs them."""
        start = self.start or (1e-5 if corruption.steps is None else 1 / corruption.steps)
        empty = float(corruption.alpha(torch.ones((), dtype=torch.float64))) == 0
        return start, self.end or (0.999 if empty else 1.0)

    def _divergence(
        self, model: Any, x: Tensor, t: Tensor, probe: Tensor, corruption: Gaussian
    ) -> tuple[Tensor, Tensor]:
        """u(x, t) and its divergence [R]."""
        with torch.enable_grad():
            x = x.detach().clone().requires_grad_(True)
            slope = velocity(x, model.denoise(x, t), corruption.level(t))
            if not self.exact:
                (product,) = torch.autograd.grad(slope, x, probe)
                return slope.detach(), (product * probe).flatten(1).sum(1)
            flat = slope.flatten(1)
            total = torch.zeros(len(x), dtype=x.dtype, device=x.device)
            for dimension in range(flat.shape[1]):
                (row,) = torch.autograd.grad(flat[:, dimension].sum(), x, retain_graph=True)
                total = total + row.flatten(1)[:, dimension]
            return slope.detach(), total
