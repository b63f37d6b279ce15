"""Schedules in continuous time, and the geometric noise levels of score networks.

    VP       B = b0 t + (b1 - b0) t^2 / 2,   alpha = exp(-B / 2),   sigma = sqrt(1 - exp(-B))
    sub-VP   the same alpha,                                        sigma = 1 - exp(-B)
    VE       alpha = 1,   sigma = s_min (s_max / s_min)^t for t > 0
    EDM      alpha = 1,   sigma = s_max t
    flow     alpha = 1 - t,   sigma = t

(Song et al. 2021, section 3.4 and appendix C; Karras et al. 2022, table 1; Liu, Gong & Liu 2023.) As images
are in [-1, 1], noise levels published for [0, 1] are doubled where a configuration names them.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from genbench.contracts import UserError
from genbench.corruptions.schedules import Schedule

EMBEDDED = 999.0
"""Times in [0, 1] are shown to networks on the scale of DDPM's 0 ... 999."""


class _Continuous(Schedule):
    """Training times are uniform on [least, 1]: at t = 0 a score is infinite."""

    steps = None

    def __init__(self, least: float = 1e-5) -> None:
        self.least = least

    def conditioning(self, t: Tensor) -> Tensor:
        return (EMBEDDED * t.double()).float()

    def draw_times(self, count: int, device: torch.device) -> Tensor:
        uniform = torch.rand(count, dtype=torch.float64, device=device)
        return self.least + (1 - self.least) * uniform


class VP(_Continuous):
    """The variance-preserving SDE, beta from `beta_min` to `beta_max` (Song et al. 2021, eq. 11 and 32)."""

    def __init__(self, beta_min: float = 0.1, beta_max: float = 20.0, least: float = 1e-5) -> None:
        super().__init__(least)
        self.beta_min, self.beta_max = beta_min, beta_max

    def _beta(self, t: Tensor) -> Tensor:
        return self.beta_min + (self.beta_max - self.beta_min) * t.double()

    def log_alpha(self, t: Tensor) -> Tensor:
        t = t.double()
        return -0.5 * (self.beta_min * t + 0.5 * (self.beta_max - self.beta_min) * t**2)

    def sigma(self, t: Tensor) -> Tensor:
        return torch.expm1(2 * self.log_alpha(t)).abs().sqrt()  # never -0

    def alpha_rate(self, t: Tensor) -> Tensor:
        return -0.5 * self._beta(t) * self.alpha(t)

    def sigma_rate(self, t: Tensor) -> Tensor:
        return 0.5 * self._beta(t) * self.alpha(t) ** 2 / self.sigma(t)


class SubVP(VP):
    """The sub-VP SDE: the same signal, less noise on the way (Song et al. 2021, eq. 13 and 33)."""

    def sigma(self, t: Tensor) -> Tensor:
        return -torch.expm1(2 * self.log_alpha(t))

    def sigma_rate(self, t: Tensor) -> Tensor:
        return self._beta(t) * self.alpha(t) ** 2


class VE(_Continuous):
    """The variance-exploding SDE (Song et al. 2021, eq. 9 and 30); at t = 0 there is no noise at all.

    Networks are shown ln sigma, as NCSN++ wants it.
    """

    def __init__(self, sigma_min: float, sigma_max: float, least: float = 1e-5) -> None:
        super().__init__(least)
        _check_range(sigma_min, sigma_max)
        self.sigma_min, self.terminal_std = sigma_min, sigma_max

    def log_alpha(self, t: Tensor) -> Tensor:
        return torch.zeros_like(t, dtype=torch.float64)

    def sigma(self, t: Tensor) -> Tensor:
        t = t.double()
        level = self.sigma_min * (self.terminal_std / self.sigma_min) ** t
        return torch.where(t > 0, level, torch.zeros_like(level))

    def alpha_rate(self, t: Tensor) -> Tensor:
        return torch.zeros_like(t, dtype=torch.float64)

    def sigma_rate(self, t: Tensor) -> Tensor:
        return self.sigma(t) * math.log(self.terminal_std / self.sigma_min)

    def conditioning(self, t: Tensor) -> Tensor:
        return self.sigma(t).log().float()


class EDM(_Continuous):
    """sigma(t) = sigma_max t; trained at log-normal noise levels (Karras et al. 2022, table 1).

    ln sigma ~ N(p_mean, p_std^2). Networks are shown c_noise = ln(sigma) / 4.
    """

    def __init__(self, sigma_max: float = 80.0, p_mean: float = -1.2, p_std: float = 1.2) -> None:
        super().__init__()
        self.terminal_std, self.p_mean, self.p_std = sigma_max, p_mean, p_std

    def log_alpha(self, t: Tensor) -> Tensor:
        return torch.zeros_like(t, dtype=torch.float64)

    def sigma(self, t: Tensor) -> Tensor:
        return self.terminal_std * t.double()

    def alpha_rate(self, t: Tensor) -> Tensor:
        return torch.zeros_like(t, dtype=torch.float64)

    def sigma_rate(self, t: Tensor) -> Tensor:
        return torch.full_like(t, self.terminal_std, dtype=torch.float64)

    def conditioning(self, t: Tensor) -> Tensor:
        return (self.sigma(t).log() / 4).float()

    def draw_times(self, count: int, device: torch.device) -> Tensor:
        normal = torch.randn(count, dtype=torch.float64, device=device)
        return (self.p_mean + self.p_std * normal).exp() / self.terminal_std


class Flow(_Continuous):
    """The straight path from data to noise (Liu et al. 2023; Lipman et al. 2023)."""

    def __init__(self) -> None:
        super().__init__(least=0.0)

    def log_alpha(self, t: Tensor) -> Tensor:
        return torch.log1p(-t.double())

    def alpha(self, t: Tensor) -> Tensor:
        return 1 - t.double()

    def sigma(self, t: Tensor) -> Tensor:
        return t.double()

    def alpha_rate(self, t: Tensor) -> Tensor:
        return torch.full_like(t, -1.0, dtype=torch.float64)

    def sigma_rate(self, t: Tensor) -> Tensor:
        return torch.ones_like(t, dtype=torch.float64)


class Geometric(Schedule):
    """L noise levels in geometric progression without scaling: NCSN's (Song & Ermon 2019, 2020).

    Time i / L is the i-th level from below, sigma_min at i = 1 and sigma_max at i = L; between two of them
    log sigma is interpolated, and at t = 0 there is no noise at all. Networks are shown i on DDPM's scale.
    """

    steps: int

    def __init__(self, levels: int, sigma_min: float, sigma_max: float) -> None:
        _check_range(sigma_min, sigma_max)
        if levels < 2:
            raise UserError(f"schedule.levels={levels}: at least 2 noise levels are needed.")
        self.steps = levels
        self.sigma_min, self.terminal_std = sigma_min, sigma_max

    def _share(self, t: Tensor) -> Tensor:
        """0 at the lowest level, 1 at the highest."""
        return ((t.double() * self.steps - 1) / (self.steps - 1)).clamp(min=0)

    def log_alpha(self, t: Tensor) -> Tensor:
        return torch.zeros_like(t, dtype=torch.float64)

    def sigma(self, t: Tensor) -> Tensor:
        level = self.sigma_min * (self.terminal_std / self.sigma_min) ** self._share(t)
        return torch.where(t > 0, level, torch.zeros_like(level))

    def alpha_rate(self, t: Tensor) -> Tensor:
        return torch.zeros_like(t, dtype=torch.float64)

    def sigma_rate(self, t: Tensor) -> Tensor:
        slope = math.log(self.terminal_std / self.sigma_min) * self.steps / (self.steps - 1)
        return self.sigma(t) * slope * (self._share(t) > 0)

    def conditioning(self, t: Tensor) -> Tensor:
        return (EMBEDDED * self._share(t)).float()

    def draw_times(self, count: int, device: torch.device) -> Tensor:
        return torch.randint(1, self.steps + 1, (count,), device=device).double() / self.steps


def _check_range(sigma_min: float, sigma_max: float) -> None:
    if not 0 < sigma_min < sigma_max:
        raise UserError(
            f"schedule.sigma_min={sigma_min} and schedule.sigma_max={sigma_max}: expected 0 < min < max."
        )
