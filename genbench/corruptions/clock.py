"""Corruptions without a noise schedule: their time, discrete or continuous, and the rule they all have."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from genbench.contracts import Corruption, Law, Posterior, UserError
from genbench.ops.random import Randomness, Stream, Within

TIME_SCALE = 1000.0
"""Networks embed times of 0 ... 1000, whatever T is."""

LEAST_TIME = 1e-4
"""What continuous times of training are held above (Shi et al. 2024): masks are weighted by 1 / t."""


@dataclass(frozen=True)
class Recorrupted:
    """The law of F_s(x0, z), z being the noise of a new trajectory: unified diffusion's rule 1."""

    corruption: Corruption
    x0: Tensor
    s: Tensor

    @property
    def mean(self) -> Tensor:
        """x0 itself; most corruptions have no better."""
        return self.x0

    def sample(self, randomness: Randomness, step: int) -> Tensor:
        noise = self.corruption.draw(self.x0.shape, Within(randomness, step, Stream.STEP))
        return self.corruption.apply(self.x0, noise, self.s)


class Timed(Corruption):
    """steps: T of the times i / T, i = 1 ... T; None for all of (0, 1].

    A subclass has `draw`, `apply` and `terminal`; rule 1 follows from these.
    """

    invertible_in_noise = False

    def __init__(self, steps: int | None = None) -> None:
        if steps is not None and steps < 1:
            raise UserError(f"corruption.steps={steps}: expected at least 1, or null for continuous time.")
        self.steps = steps

    def draw_times(self, count: int, device: torch.device) -> Tensor:
        if self.steps is None:
            # One offset for the batch spreads its times evenly: (i + u) / count has less variance than draws.
            spread = torch.arange(count, device=device, dtype=torch.float64)
            offset = torch.rand((), device=device, dtype=torch.float64)
            return (1 - (spread + offset) / count).clamp(min=LEAST_TIME)
        return torch.randint(1, self.steps + 1, (count,), device=device).double() / self.steps

    def conditioning(self, t: Tensor) -> Tensor:
        return (t.double() * TIME_SCALE).float()

    def renoised(self, x_t: Tensor, x0: Posterior, s: Tensor, t: Tensor, fresh: float) -> Law:
        if fresh < 1:
            raise UserError("This corruption cannot tell its noise. Type rule=fresh or rule=bridge.")
        return Recorrupted(self, x0.mean, s)
