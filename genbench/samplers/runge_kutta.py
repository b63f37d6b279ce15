"""Dormand and Prince's embedded Runge-Kutta pair of orders 5 and 4, with a step size for every image.

Each image advances by its own accepted steps, from its own error, in rounds: a round evaluates the derivative
for all images that have not arrived. The last stage of an accepted step is the first of the next.
(Dormand & Prince 1980; step-size control after Hairer, Norsett & Wanner, section II.4.)
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from genbench.errors import UserError

# Butcher's tableau: the stages' times, their coefficients, and the difference of the two solutions.
_TIMES = (0.0, 1 / 5, 3 / 10, 4 / 5, 8 / 9, 1.0, 1.0)
_STAGES = (
    (),
    (1 / 5,),
    (3 / 40, 9 / 40),
    (44 / 45, -56 / 15, 32 / 9),
    (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729),
    (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656),
    (35 / 384, 0.0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84),
)
_ERROR = (71 / 57600, 0.0, -71 / 16695, 71 / 1920, -17253 / 339200, 22 / 525, -1 / 40)

Derivative = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(states [R, ...], times float64 [R], rows bool [B] of which these R are) -> derivatives [R, ...]."""


class NoProgress(UserError):
    """Steps became too small to change the time: the derivative is not smooth, or not finite."""


def dormand_prince(
    derivative: Derivative,
    x: Tensor,
    start: float,
    end: float,
    rtol: float,
    atol: float,
    first_step: float = 0.01,
    most_rounds: int = 10_000,
) -> Tensor:
    """x [B, ...] at `end`, from x at `start`; time may run either way. Raises NoProgress.

    An error is the root mean square over an image of difference / (atol + rtol |x|), and 1 is the limit.
    first_step: a share of the interval.
    """
    batch, device = x.shape[0], x.device
    length = end - start
    done = torch.zeros(batch, dtype=torch.float64, device=device)  # share of the interval behind each image
    size = torch.full_like(done, first_step)
    everyone = torch.ones(batch, dtype=torch.bool, device=device)
    slope = derivative(x, torch.full_like(done, start), everyone)
    x = x.clone()
    for _ in range(most_rounds):
        rows = done < 1
        if not bool(rows.any()):
            return x
        state, stages = x[rows], [slope[rows]]
        step = torch.minimum(size[rows], 1 - done[rows])
        scale = _column(step * length, state)
        for share, weights in zip(_TIMES[1:], _STAGES[1:], strict=True):
            moved = state + scale * _sum(weights, stages)
            stages.append(derivative(moved, start + (done[rows] + share * step) * length, rows))
        allowed = atol + rtol * torch.maximum(state.abs(), moved.abs())
        error = (scale * _sum(_ERROR, stages) / allowed).double().flatten(1).square().mean(dim=1).sqrt()
        error = torch.where(error.isfinite(), error, torch.inf)
        accepted = error <= 1
        arrived = rows.nonzero().flatten()[accepted]
        x[arrived], slope[arrived] = moved[accepted], stages[-1][accepted]
        # A step that ends at the interval's end must end there exactly.
        behind = done[rows] + step
        done[arrived] = torch.where(step >= 1 - done[rows], torch.ones_like(behind), behind)[accepted]
        growth = (0.9 * error.clamp(min=1e-10) ** -0.2).clamp(0.2, 10.0)
        size[rows] = step * torch.where(accepted, growth, growth.clamp(max=1.0))
        if bool((size[done < 1] < 1e-12).any()):
            raise NoProgress(
                "the ODE cannot be solved to this tolerance: its steps have become too small. Type larger "
                "rtol and atol, or a later end of the time that is solved for."
            )
    raise NoProgress(f"the ODE needs more than {most_rounds:,} rounds of steps. Type larger rtol and atol.")


def _column(values: Tensor, like: Tensor) -> Tensor:
    return values.to(like.dtype).reshape(-1, *(1,) * (like.ndim - 1))


def _sum(weights: tuple[float, ...], stages: list[Tensor]) -> Tensor:
    total = torch.zeros_like(stages[0])
    for weight, stage in zip(weights, stages):
        if weight:
            total.add_(stage, alpha=weight)
    return total
