"""The correction rules of unified diffusion, which any corruption x_t = F_t(x0, noise) can be asked for.

    (1) fresh           x_s = F_s(x0_hat, z)                                     always valid
    (2) deterministic   x_s = F_s(x0_hat, n_hat)                                 n_hat: the noise in x_t
    (3) mixed           x_s = F_s(x0_hat, sqrt(1 - v^2) n_hat + v z)             Gaussian noise, v in [0, 1]
        bridge          x_s ~ p(x_s | x_t, x0_hat)                               noise that x_t tells in part

(kexue.fm 9262 and 9271.) All keep the marginal law of x_s where x0_hat is a draw from p(x0 | x_t). Steps that
belong to Gaussian corruption alone are in `gaussian_rules`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from genbench.contracts import Law, Posterior, Rule, UserError
from genbench.corruptions.chains import Chain
from genbench.corruptions.gaussian import GaussianLaw


@dataclass(frozen=True)
class Mixed(Rule):
    """Rule 3: a share `sigma_tilde` in [0, 1] of the noise is drawn anew; 1 is rule 1, and 0 rule 2."""

    sigma_tilde: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.sigma_tilde <= 1:
            raise UserError(f"rule.sigma_tilde={self.sigma_tilde}: expected a share from 0 to 1.")

    def __str__(self) -> str:
        names = {0.0: "deterministic", 1.0: "fresh"}
        return f"rule={names.get(self.sigma_tilde, 'mixed')}"

    def check(self, corruption: Any, s: Tensor, t: Tensor) -> None:
        if self.sigma_tilde < 1 and not corruption.invertible_in_noise:
            raise UserError(
                f"{self} keeps noise of x_t, which this model's corruption cannot recover. Type rule=fresh "
                "or rule=bridge."
            )
        if 0 < self.sigma_tilde < 1 and not corruption.gaussian_noise:
            raise UserError(
                f"{self} mixes two draws of noise, which must be Gaussian, and that of this model's "
                "corruption is not. Type rule=fresh or rule=deterministic."
            )

    def law(self, corruption: Any, x_t: Tensor, x0: Posterior, s: Tensor, t: Tensor) -> Law:
        return corruption.renoised(x_t, x0, s, t, self.sigma_tilde)


@dataclass(frozen=True)
class Bridge(Rule):
    """The corruption's own law of x_s between x_t and the estimate; see `Corruption.bridge`."""

    def check(self, corruption: Any, s: Tensor, t: Tensor) -> None:
        if not corruption.bridges:
            raise UserError("rule=bridge: this model's corruption knows none. Type rule=fresh.")

    def law(self, corruption: Any, x_t: Tensor, x0: Posterior, s: Tensor, t: Tensor) -> Law:
        return corruption.bridge(x_t, x0, s, t)


@dataclass(frozen=True)
class Joint(Rule):
    """D3PM's step as published: x0 weighted by its joint law with x_t (Austin et al. 2021, eq. 4)."""

    def check(self, corruption: Any, s: Tensor, t: Tensor) -> None:
        if not isinstance(corruption, Chain):
            raise UserError(
                "rule=joint is a step of chains of grey levels, corruption=uniform, absorbing or "
                "gaussian_discrete, and this model's corruption is none. Type rule=bridge."
            )

    def law(self, corruption: Chain, x_t: Tensor, x0: Posterior, s: Tensor, t: Tensor) -> Law:
        return corruption.joint(x_t, x0, s, t)


@dataclass(frozen=True)
class LessDegraded(Rule):
    """Inverse heat dissipation (Rissanen et al. 2023, algorithm 2): to the model's own less blurred mean.

    noise: standard deviation of what is added at every step but the last, delta in the paper.
    """

    noise: float

    def check(self, corruption: Any, s: Tensor, t: Tensor) -> None:
        if corruption.steps is None or abs(float(t - s) * corruption.steps - 1) > 1e-6:
            own = "" if corruption.steps else "corruption.steps=100 "
            raise UserError(
                "sampler=ihdm, of model=ihdm, takes one of the corruption's own steps at a time. "
                f"Type {own}sampler.steps={corruption.steps or 100} grid=uniform."
            )

    def check_estimate(self, x0: Posterior) -> None:
        if x0.earlier is None:
            raise UserError(
                "sampler=ihdm needs the own estimate of a model of inverse heat. Type model=ihdm draw=mean."
            )

    def law(self, corruption: Any, x_t: Tensor, x0: Posterior, s: Tensor, t: Tensor) -> Law:
        assert x0.earlier is not None
        return GaussianLaw((torch.ones_like(s),), (x0.earlier,), self.noise * (s > 0).double())
