"""Time grids: the descending times a sampler visits, from where it starts to t = 0.

A grid is called with the number of steps and the corruption, whose `steps` T is None where time is
continuous, and returns float64 [steps + 1], the last being 0. Discrete grids follow DDIM's code: indices
tau_1 < ... < tau_S of {0 ... T - 1}, visited from the last, index tau standing for time (tau + 1) / T.
Grids in noise levels choose `steps` levels and then go to the data; at a model of discrete times they ask for
times between those it was trained at.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor

from genbench.contracts import Corruption, UserError
from genbench.corruptions.gaussian import Gaussian, Linear


class Grid(ABC):
    """A choice of times; raises UserError where the steps do not fit the corruption."""

    @abstractmethod
    def __call__(self, steps: int, corruption: Corruption) -> Tensor:
        """Descending times, float64 [steps + 1], ending at 0."""


def _from_indices(indices: Tensor, total: int) -> Tensor:
    return _to_data((indices.flip(0).double() + 1) / total)


def _to_data(times: Tensor) -> Tensor:
    return torch.cat((times, torch.zeros(1, dtype=torch.float64)))


def _check(steps: int, total: int | None) -> None:
    if steps < 1:
        raise UserError(f"sampler.steps={steps}: at least 1 step is needed.")
    if total is not None and steps > total:
        raise UserError(
            f"sampler.steps={steps}, but the model knows {total} times. Type sampler.steps={total} or fewer."
        )


class Uniform(Grid):
    """Evenly spaced times; of a discrete schedule the indices floor(i T / S), i = 0 ... S - 1.

    Where S divides T this is DDIM's `range(0, T, T // S)`; elsewhere that would give more than S steps. Its
    first time is a little below 1, where Gaussian corruption has left next to nothing. Other corruptions have
    a law to start from at 1 alone: there the indices are those of ceil(i T / S), i = 1 ... S.
    start: the first time, where time is continuous.
    """

    def __init__(self, start: float = 1.0) -> None:
        self.start = _start(start)

    def __call__(self, steps: int, corruption: Corruption) -> Tensor:
        total = corruption.steps
        _check(steps, total)
        if total is None:
            return torch.linspace(self.start, 0, steps + 1, dtype=torch.float64)
        if isinstance(corruption, Linear):
            return _from_indices(torch.arange(steps) * total // steps, total)
        return _from_indices(-(-torch.arange(1, steps + 1) * total // steps) - 1, total)


class Quadratic(Grid):
    """Times denser near the data: indices floor(linspace(0, sqrt(0.8 T), S)^2), DDIM's choice for CIFAR-10.

    The grid never goes above 0.8 T; sampling still starts from N(0, I). For S >= 50 of T = 1000 index 0
    repeats, and a repeated time is a step that changes nothing. In continuous time: (0.8 i^2 / S^2).
    """

    def __call__(self, steps: int, corruption: Corruption) -> Tensor:
        total = corruption.steps
        _check(steps, total)
        if total is None:
            return 0.8 * torch.linspace(1, 0, steps + 1, dtype=torch.float64) ** 2
        roots = torch.linspace(0, (0.8 * total) ** 0.5, steps, dtype=torch.float64)
        # 800 = sqrt(800)^2 must not fall to 799 by a rounding.
        return _from_indices((roots**2 + 1e-9).floor().long(), total)


class Cosine(Grid):
    """t_i = cos(pi i / (2 S)), i = 0 ... S, the shares of an image that MaskGIT hides (Chang et al. 2022).

    Of discrete times the next one up; times may repeat.
    """

    def __call__(self, steps: int, corruption: Corruption) -> Tensor:
        total = corruption.steps
        _check(steps, total)
        times = torch.cos(torch.arange(steps, dtype=torch.float64) / steps * (math.pi / 2))
        return _to_data(times if total is None else (times * total - 1e-9).ceil() / total)


class LogSNR(Grid):
    """Even steps in half the log-SNR from time `start` to time `end`, then to the data.

    end: 1 / T of a discrete schedule of T times where not given, 1e-3 of a continuous one.
    """

    def __init__(self, start: float = 1.0, end: float | None = None) -> None:
        self.start, self.end = _start(start), end

    def __call__(self, steps: int, corruption: Corruption) -> Tensor:
        _check(steps, None)
        schedule = _schedule(corruption)
        end = self.end or (1e-3 if corruption.steps is None else 1 / corruption.steps)
        ends = torch.tensor([self.start, end], dtype=torch.float64)
        first, last = schedule.half_log_snr(ends).tolist()
        if first == -float("inf"):
            raise UserError("This corruption leaves no data at its last time. Type grid.start=0.999.")
        times = schedule.time_at(torch.linspace(first, last, steps, dtype=torch.float64))
        times[0] = self.start
        return _to_data(times)


class Rho(Grid):
    """Noise levels even in their rho-th roots, then the data (Karras et al. 2022, eq. 5).

    sigma_max, sigma_min: the first and last of `steps` levels, in units of sigma / alpha; the schedule's own
    extremes (at t = 1, and at 1e-3 or 1 / T) where not given.
    """

    def __init__(
        self, sigma_max: float | None = None, sigma_min: float | None = None, rho: float = 7.0
    ) -> None:
        self.sigma_max, self.sigma_min, self.rho = sigma_max, sigma_min, rho

    def __call__(self, steps: int, corruption: Corruption) -> Tensor:
        _check(steps, None)
        schedule = _schedule(corruption)
        end = 1e-3 if corruption.steps is None else 1 / corruption.steps
        ends = torch.tensor([1.0, end], dtype=torch.float64)
        noisiest, cleanest = (-schedule.half_log_snr(ends)).exp().tolist()
        largest, smallest = self.sigma_max or noisiest, self.sigma_min or cleanest
        if not smallest < largest < float("inf"):
            raise UserError(
                f"grid.sigma_max={largest} and grid.sigma_min={smallest}: expected finite, max above min. Of "
                "a path that ends in pure noise, like flow's, choose where to begin: type grid.sigma_max=80."
            )
        roots = torch.linspace(
            largest ** (1 / self.rho), smallest ** (1 / self.rho), steps, dtype=torch.float64
        )
        return _to_data(schedule.time_at(-self.rho * roots.log()))


def _start(start: float) -> float:
    if not 0 < start <= 1:
        raise UserError(f"grid.start={start}: expected a time above 0 and at most 1.")
    return start


def _schedule(corruption: Corruption) -> Any:
    if not isinstance(corruption, Gaussian):
        raise UserError(
            "This grid is spaced by noise levels, and this model's corruption has none. Type grid=uniform."
        )
    return corruption.schedule
