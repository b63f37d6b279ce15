"""Noise schedules: how much signal `alpha(t)` and noise `sigma(t)` an image has at time t in [0, 1].

    x_t = alpha(t) x_0 + sigma(t) eps,    alpha(0) = 1, sigma(0) = 0

A discrete schedule is known at t = i / T for i = 0 ... T. In Ho's notation alpha(i/T)^2 is the product of
(1 - beta_j) for j = 1 ... i; this module keeps log alpha in float64, because 1 - alpha^2 loses all its
digits near t = 0 where the last sampling steps happen.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor


class Schedule(ABC):
    """Signal and noise levels over time, and what a network is told about a time."""

    steps: int | None
    """T of a discrete schedule; None where time is continuous."""

    terminal_std: float = 1.0
    """Standard deviation of the law sampling starts from."""

    def __str__(self) -> str:
        name = type(self).__name__
        return name if self.terminal_std == 1 else f"{name} up to {self.terminal_std:g}"

    @abstractmethod
    def log_alpha(self, t: Tensor) -> Tensor:
        """log alpha(t), float64, of t's shape."""

    def alpha(self, t: Tensor) -> Tensor:
        """The signal level a_t, float64, of t's shape."""
        return self.log_alpha(t).exp()

    @abstractmethod
    def sigma(self, t: Tensor) -> Tensor:
        """The noise level s_t, float64, of t's shape."""

    @abstractmethod
    def alpha_rate(self, t: Tensor) -> Tensor:
        """d alpha / dt, float64, of t's shape."""

    @abstractmethod
    def sigma_rate(self, t: Tensor) -> Tensor:
        """d sigma / dt for t > 0, likewise."""

    def half_log_snr(self, t: Tensor) -> Tensor:
        """lambda = log(alpha / sigma), float64, falling in t."""
        return self.log_alpha(t) - self.sigma(t).log()

    def time_at(self, half_log_snr: Tensor) -> Tensor:
        """The time at which lambda has the given values, found by bisection to the last digits of float64."""
        low, high = torch.zeros_like(half_log_snr), torch.ones_like(half_log_snr)
        for _ in range(100):
            middle = (low + high) / 2
            noisier = self.half_log_snr(middle) < half_log_snr
            low, high = torch.where(noisier, low, middle), torch.where(noisier, middle, high)
        return high

    @abstractmethod
    def conditioning(self, t: Tensor) -> Tensor:
        """What the network embeds for time t, float32, of t's shape."""

    @abstractmethod
    def draw_times(self, count: int, device: torch.device) -> Tensor:
        """`count` training times from torch's global generator, float64 [count]."""


class DiscreteVP(Schedule):
    """A variance-preserving schedule (alpha^2 + sigma^2 = 1) from its betas (Ho et al. 2020, eq. 2 and 4).

    betas: float64 [T], beta_i = 1 - (alpha_i / alpha_{i-1})^2 in (0, 1). Between grid times log alpha is a
    monotone cubic (Fritsch & Butland 1984): solvers that choose their own steps would spend them on the kinks
    of a straight interpolation (a Gaussian from t = 1 to .05 at rtol 1e-6 takes 91 evaluations and is off by
    2e-6; by straight lines 817, and 2e-4).
    """

    steps: int

    def __init__(self, betas: Tensor) -> None:
        self.steps = len(betas)
        start = torch.zeros(1, dtype=torch.float64)
        self.log_alphas = torch.cat((start, 0.5 * torch.log1p(-betas.double()).cumsum(0)))
        """log alpha(i / T) for i = 0 ... T, float64 on the CPU."""
        self._tables: dict[torch.device, Tensor] = {}

    def _table(self, device: torch.device) -> Tensor:
        """`log_alphas` and their slopes per index, [2, T + 1], on a device, copied there once."""
        if device not in self._tables:
            table = torch.stack((self.log_alphas, _monotone_slopes(self.log_alphas)))
            self._tables[device] = table.to(device)
        return self._tables[device]

    def _cubic(self, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The place of t between two grid times, in [0, 1], and table columns [2, ...] below and above it."""
        position = t.double() * self.steps
        # i / T * T may miss i by a rounding; grid times must read the table exactly.
        nearest = position.round()
        position = torch.where((position - nearest).abs() < 1e-9, nearest, position)
        below = position.floor().long().clamp(0, self.steps - 1)
        table = self._table(t.device)
        return position - below, table[:, below], table[:, below + 1]

    def log_alpha(self, t: Tensor) -> Tensor:
        u, (low, low_slope), (high, high_slope) = self._cubic(t)
        v = 1 - u
        # At u = 0 and at u = 1 this is the table's own entry to the last bit.
        values = v**2 * (1 + 2 * u) * low + u**2 * (1 + 2 * v) * high
        return values + u * v * (v * low_slope - u * high_slope)

    def _log_alpha_rate(self, t: Tensor) -> Tensor:
        u, (low, low_slope), (high, high_slope) = self._cubic(t)
        v = 1 - u
        steep = 6 * u * v * (high - low) + v * (1 - 3 * u) * low_slope + u * (1 - 3 * v) * high_slope
        return steep * self.steps

    def sigma(self, t: Tensor) -> Tensor:
        # Of an absolute value: the root of -0, at t = 0, is -0, and 1 / sigma would be -infinity.
        return torch.expm1(2 * self.log_alpha(t)).abs().sqrt()

    def alpha_rate(self, t: Tensor) -> Tensor:
        return self.alpha(t) * self._log_alpha_rate(t)

    def sigma_rate(self, t: Tensor) -> Tensor:
        return -self.alpha(t) * self.alpha_rate(t) / self.sigma(t)  # alpha^2 + sigma^2 = 1

    def conditioning(self, t: Tensor) -> Tensor:
        """Ho's 0-based index, 0 ... T - 1: time i / T is embedded as i - 1."""
        return (t.double() * self.steps - 1).float()

    def draw_times(self, count: int, device: torch.device) -> Tensor:
        return torch.randint(1, self.steps + 1, (count,), device=device).double() / self.steps


def _monotone_slopes(values: Tensor) -> Tensor:
    """Slopes at which a cubic through evenly spaced falling values [N] falls everywhere.

    Harmonic means of the neighbouring differences, none where these differ in sign; at the ends a parabola's.
    """
    steps = values.diff()
    if len(steps) == 1:
        return steps.expand(2)
    before, after = steps[:-1], steps[1:]
    inner = torch.where(before * after > 0, 2 * before * after / (before + after), torch.zeros_like(before))

    def end(first: Tensor, second: Tensor) -> Tensor:
        slope = (3 * first - second) / 2
        return torch.where(slope * first > 0, slope, torch.zeros_like(slope)).reshape(1)

    return torch.cat((end(steps[0], steps[1]), inner, end(steps[-1], steps[-2])))


class Linear(DiscreteVP):
    """Ho's linear betas, 1e-4 to 0.02 over T = 1000 (Ho et al. 2020, section 4)."""

    def __init__(self, steps: int = 1000, beta_start: float = 1e-4, beta_end: float = 0.02) -> None:
        super().__init__(torch.linspace(beta_start, beta_end, steps, dtype=torch.float64))


class Cosine(DiscreteVP):
    """alpha^2 follows a squared cosine (Nichol & Dhariwal 2021, eq. 17); betas are cut at `beta_max`."""

    def __init__(self, steps: int = 1000, offset: float = 0.008, beta_max: float = 0.999) -> None:
        i = torch.arange(steps + 1, dtype=torch.float64)
        signal = torch.cos((i / steps + offset) / (1 + offset) * (math.pi / 2)) ** 2
        super().__init__((1 - signal[1:] / signal[:-1]).clamp(max=beta_max))


class Su(DiscreteVP):
    """The schedule of Su Jianlin's blog (kexue.fm 9119): alpha_i / alpha_{i-1} = sqrt(1 - 0.02 i / T)."""

    def __init__(self, steps: int = 1000, beta_end: float = 0.02) -> None:
        i = torch.arange(1, steps + 1, dtype=torch.float64)
        super().__init__(beta_end * i / steps)
