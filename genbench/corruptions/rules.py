"""The correction rules of unified diffusion, which any corruption x_t = F_t(x0, noise) can be asked for.

    (1) fresh           x_s = F_s(x0_hat, z)                                     always valid
    (2) deterministic   x_s = F_s(x0_hat, n_hat)                                 n_hat: the noise in x_t
    (3) mixed           x_s = F_s(x0_hat, sqrt(1 - v^2) n_hat + v z)             Gaussian noise, v in [0, 1]

(kexue.fm 9262 and 9271.) All keep the marginal law of x_s where x0_hat is a draw from p(x0 | x_t). Steps that
belong to Gaussian corruption alone are in `gaussian_rules`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from genbench.contracts import Law, Posterior, Rule, UserError


@dataclass(frozen=True)
class Mixed(Rule):
    """Rule 3: a share `sigma_tilde` in [0, 1] of the noise is drawn anew; 1 is rule 1, and 0 rule 2."""

    sigma_tilde: float

    def __post_init__(self) -> None:
        if not 0 <= self.sigma_tilde <= 1:
            raise UserError(f"rule.sigma_tilde={self.sigma_tilde}: expected a share from 0 to 1.")

    def check(self, corruption: Any, s: Tensor, t: Tensor) -> None:
        if self.sigma_tilde < 1 and not corruption.invertible_in_noise:
            raise UserError(
                f"The rule {self} keeps the noise in x_t, which the corruption "
                f"{type(corruption).__name__} cannot recover. Choose the fresh rule."
            )

    def law(self, corruption: Any, x_t: Tensor, x0: Posterior, s: Tensor, t: Tensor) -> Law:
        return corruption.renoised(x_t, x0, s, t, self.sigma_tilde)
