"""Solvers of the probability-flow ODE in t, for any Gaussian corruption.

    dx/dt = u(x, t) = alpha'(t) x0_hat + sigma'(t) eps_hat,     eps_hat = (x - alpha x0_hat) / sigma

With EDM's schedule, sigma proportional to t, this is dx/dsigma = (x - D) / sigma; with flow's it is the
velocity itself. Which times are visited is the grid's affair.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from genbench.contracts import Level, Posterior, UserError
from genbench.ops.combine import combine
from genbench.ops.random import Stream
from genbench.samplers.grids import Grid
from genbench.samplers.guidance import Clip
from genbench.samplers.iterative import Backwards, GaussianIterative, Path, require_gaussian
from genbench.samplers.runge_kutta import dormand_prince


def drift(level: Level) -> tuple[Tensor, Tensor]:
    """(f, g) of u(x, t) = f x + g x0_hat."""
    fade = level.sigma_rate / level.sigma
    return fade, level.alpha_rate - fade * level.alpha


def velocity(x: Tensor, x0: Posterior, level: Level) -> Tensor:
    """u(x, t) from the estimate at x, in the dtype of x."""
    return combine(drift(level), (x, x0.estimate))


class Heun(GaussianIterative):
    """Heun's second-order method with optional churn (Karras et al. 2022, algorithms 1 and 2).

    The step to the data is Euler's in sigma, which ends at the estimate: n steps cost 2 n - 1 evaluations.
    churn, churn_min, churn_max, churn_noise: S_churn, S_tmin, S_tmax, S_noise of algorithm 2, in units of
    sigma / alpha.
    """

    def __init__(
        self,
        steps: int,
        grid: Grid,
        clip: Clip = False,
        guidance: float = 0.0,
        churn: float = 0.0,
        churn_min: float = 0.0,
        churn_max: float = float("inf"),
        churn_noise: float = 1.0,
    ) -> None:
        super().__init__(steps, grid, clip, guidance)
        self.churn, self.churn_min, self.churn_max = churn, churn_min, churn_max
        self.churn_noise = churn_noise

    def estimates(self) -> int:
        return 2 * self.steps - 1

    def walk(self, x: Tensor, times: Tensor, path: Path) -> Tensor:
        for step, (t, s) in enumerate(pairwise(times)):
            x, t = self._churned(x, t, step, path)
            here, there = path.corruption.level(t), path.corruption.level(s)
            x0 = path.estimate(x, t)
            if there.sigma == 0:
                x = x0.mean
                continue
            dt = s - t
            fade, gain = drift(here)
            euler = combine((1 + dt * fade, dt * gain), (x, x0.estimate))
            # x + dt (u + u') / 2 with u = (euler - x) / dt, so that u itself is never made.
            half, (fade, gain) = torch.full_like(dt, 0.5), drift(there)
            terms = (x, euler, path.estimate(euler, s).estimate)
            x = combine((half, half + dt / 2 * fade, dt / 2 * gain), terms)
        return x

    def _churned(self, x: Tensor, t: Tensor, step: int, path: Path) -> tuple[Tensor, Tensor]:
        """x with a little noise added, and the later time at which it then is."""
        corruption = path.corruption
        level = float(corruption.sigma(t) / corruption.alpha(t))
        if not self.churn or not self.churn_min <= level <= self.churn_max:
            return x, t
        gamma = min(self.churn / self.steps, 2**0.5 - 1)
        later = corruption.schedule.time_at(
            corruption.schedule.half_log_snr(t) - torch.tensor(1 + gamma).log()
        )
        scale = corruption.alpha(later) / corruption.alpha(t)
        added = (corruption.sigma(later) ** 2 - (scale * corruption.sigma(t)) ** 2).clamp(min=0).sqrt()
        noisier = combine((scale,), (x,), added * self.churn_noise, path.randomness, step, Stream.STEP)
        return noisier, later


class RungeKutta45(Backwards):
    """Dormand and Prince's adaptive method; every image has its own steps, so none depends on its batch.

    rtol, atol: tolerances of the error an image makes in one step, as root mean square over its pixels;
    start, end: the times between which the ODE is solved (end: 1e-3, or 1/T of discrete times, unless given),
    and from the end one estimate goes to the data (`denoise`) or nothing does.
    """

    def __init__(
        self,
        rtol: float = 1e-5,
        atol: float = 1e-5,
        start: float = 1.0,
        end: float | None = None,
        denoise: bool = True,
        clip: Clip = False,
        guidance: float = 0.0,
    ) -> None:
        super().__init__(clip, guidance)
        if not 0 < (1e-9 if end is None else end) < start <= 1:
            raise UserError(f"sampler.start={start} and sampler.end={end}: expected 0 < end < start <= 1.")
        self.rtol, self.atol, self.start, self.end, self.denoise = rtol, atol, start, end, denoise

    def check(self, model: Any) -> None:
        require_gaussian(model)
        super().check(model)

    def estimates(self) -> None:
        return None

    def times(self, corruption: Any) -> Tensor:
        end = self.end or (1e-3 if corruption.steps is None else 1 / corruption.steps)
        return torch.tensor([self.start, end], dtype=torch.float64)

    def walk(self, x: Tensor, times: Tensor, path: Path) -> Tensor:
        corruption, (start, end) = path.corruption, times.tolist()

        def derivative(state: Tensor, t: Tensor, rows: Tensor) -> Tensor:
            return velocity(state, path.estimate_rows(state, t, rows), corruption.level(t))

        x = dormand_prince(derivative, x, start, end, self.rtol, self.atol)
        return path.estimate(x, times[-1].to(x.device)).mean if self.denoise else x
