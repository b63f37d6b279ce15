"""Correction rules: how much of the noise in x_t survives into x_s.

With a Gaussian corruption every rule is a choice of two standard deviations in

    x_s = alpha_s x0_hat + sqrt(sigma_s^2 - replaced^2) eps_hat + added z,     z ~ N(0, I)

Where `added` equals `replaced` the marginal law of x_s is kept (condition (*) of the unified diffusion
model, kexue.fm 9262); DDPM's large variance is the one that adds more than it replaces.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor


@dataclass(frozen=True)
class Fresh:
    """All noise is drawn anew: x_s ~ p(x_s | x0_hat). Valid for every corruption."""

    keeps_noise: ClassVar[bool] = False

    def split(self, sigma_s: Tensor, sigma_t: Tensor, sigma_ts: Tensor) -> tuple[Tensor, Tensor]:
        return sigma_s, sigma_s


@dataclass(frozen=True)
class Deterministic:
    """The noise in x_t is recovered and kept (DDIM with eta = 0)."""

    keeps_noise: ClassVar[bool] = True

    def split(self, sigma_s: Tensor, sigma_t: Tensor, sigma_ts: Tensor) -> tuple[Tensor, Tensor]:
        none = torch.zeros_like(sigma_s)
        return none, none


@dataclass(frozen=True)
class Mixed:
    """A share `sigma_tilde` in [0, 1] of the noise level is fresh (kexue.fm 9271, rule 3)."""

    sigma_tilde: float
    keeps_noise: ClassVar[bool] = True

    def split(self, sigma_s: Tensor, sigma_t: Tensor, sigma_ts: Tensor) -> tuple[Tensor, Tensor]:
        fresh = self.sigma_tilde * sigma_s
        return fresh, fresh


@dataclass(frozen=True)
class Eta:
    """DDIM's family (Song, Meng & Ermon 2020, eq. 16), written for any Gaussian corruption.

    eta = 1 has the variance of the true posterior given x0, which is DDPM's small variance; eta = 0 is
    deterministic.
    """

    eta: float
    keeps_noise: ClassVar[bool] = True

    def split(self, sigma_s: Tensor, sigma_t: Tensor, sigma_ts: Tensor) -> tuple[Tensor, Tensor]:
        fresh = self.eta * sigma_s * sigma_ts / sigma_t
        return fresh, fresh


@dataclass(frozen=True)
class LargeVariance:
    """DDPM's "fixedlarge" (Ho et al. 2020, section 3.2): the posterior's mean with variance beta_t.

    beta is optimal for data that are N(0, I), the posterior's variance for a single point. The last step
    (sigma_s = 0) adds nothing.
    """

    keeps_noise: ClassVar[bool] = True

    def split(self, sigma_s: Tensor, sigma_t: Tensor, sigma_ts: Tensor) -> tuple[Tensor, Tensor]:
        return sigma_s * sigma_ts / sigma_t, torch.where(sigma_s > 0, sigma_ts, torch.zeros_like(sigma_ts))
