"""The two rows of the table that carry a parameter: weighted Jensen-Shannon and the alpha-divergences."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from genbench.divergences.divergence import Conjugated, infinite_outside
from genbench.errors import UserError


class WeightedJensenShannon(Conjugated):
    """pi KL(P||M) + (1-pi) KL(Q||M) with the mixture M = pi P + (1-pi) Q.

    f = pi u log u - (1-pi+pi u) log(1-pi+pi u), f' = pi log(u / (1-pi+pi u)),
    f* = (1-pi) log((1-pi) / (1 - pi e^(t/pi))) on t < -pi log pi, g_f = -pi log pi - log(1 + e^-v).

    prior: pi, the probability that a point of the mixture is P's, in (0, 1). At 1/2, the default, the value
    is the Jensen-Shannon divergence in nats (half the row `js`). It is a probability: some ports of the
    paper's table put the circle's number in its place. Raises UserError outside (0, 1).
    """

    def __init__(self, prior: float = 0.5) -> None:
        if not 0 < prior < 1:
            raise UserError(
                f"prior={prior} is not a probability strictly between 0 and 1; type prior=0.5 for the "
                "Jensen-Shannon divergence itself"
            )
        self.prior = prior
        self.name = f"jsw_{_spelled(prior)}"
        self.domain = (-math.inf, -prior * math.log(prior))

    def f(self, u: Tensor) -> Tensor:
        mixture = self._mixture(u)
        return self.prior * u * u.log() - mixture * mixture.log()

    def slope(self, u: Tensor) -> Tensor:
        return -self.prior * (self.prior + (1 - self.prior) / u).log()

    def conjugate(self, t: Tensor) -> Tensor:
        rest = 1 - self.prior
        # 1 - pi e^(t/pi) keeps its digits near the end of the domain when written with the distance to it.
        gap = -torch.expm1((t - self.domain[1]) / self.prior)
        return infinite_outside(self.domain, t, rest * (math.log(rest) - gap.log()))

    def activation(self, v: Tensor) -> Tensor:
        return self.domain[1] + logsigmoid(v)

    def terms(self, v: Tensor) -> tuple[Tensor, Tensor]:
        rest = 1 - self.prior
        # log(1 - e^-z) at z = log(1 + e^-v) / pi, as log z + log((1 - e^-z) / z): log z is exact for all v,
        # while z itself underflows once v has passed 88 in float32. The second factor is then 1.
        z = (-logsigmoid(v) / self.prior).clamp(min=1e-20)
        gap = log_softplus(-v) - math.log(self.prior) + (-torch.expm1(-z) / z).log()
        return self.activation(v), rest * (math.log(rest) - gap)

    def ratio_terms(self, r: Tensor) -> tuple[Tensor, Tensor]:
        # log(1 - pi + pi e^r) = log(1 - pi) + log(1 + e^(r + logit pi))
        shifted = r + math.log(self.prior / (1 - self.prior))
        log_mixture = math.log(1 - self.prior) - logsigmoid(-shifted)
        return self.domain[1] + self.prior * logsigmoid(shifted), (1 - self.prior) * log_mixture

    def _mixture(self, u: Tensor) -> Tensor:
        return 1 - self.prior + self.prior * u


class Alpha(Conjugated):
    """The alpha-divergences: between reverse KL (alpha -> 0) and KL (alpha -> 1), and beyond both.

    f = (u^a - 1 - a(u-1)) / (a(a-1)), f' = (u^(a-1) - 1) / (a-1), f* = (b^(a/(a-1)) - 1) / a with
    b = 1 + (a-1) t. For a < 1, dom f* is t < 1/(1-a) (with its end where a < 0) and
    g_f = 1/(1-a) - log(1 + e^(c-v)) with c = log(e^(1/(1-a)) - 1), so that g_f(0) = f'(1): a critic that
    knows nothing starts where f* is 0, and not at 10^10, as without c for a = .9. For a > 1 it is R, g_f = v,
    and f* is flat at -1/a where b < 0. a = 2 is half of `Pearson`, 1/2 twice `SquaredHellinger`, -1 half of
    `Neyman`.

    `conjugate` is exact. For a > 1 `terms` takes |b| for b, which is never below f* and equal to it wherever
    T* can be; `Pearson` says why. alpha: any finite number but 0 and 1 (UserError).
    """

    def __init__(self, alpha: float) -> None:
        if alpha in (0, 1) or not math.isfinite(alpha):
            raise UserError(
                f"alpha={alpha} has no alpha-divergence of this form; expected a finite number other than 0 "
                "and 1. The limits have their own rows: take reverse KL (rkl) for 0 and KL (kl) for 1"
            )
        self.alpha = alpha
        self.name = f"alpha_{_spelled(alpha)}"
        self.domain = (-math.inf, 1 / (1 - alpha) if alpha < 1 else math.inf)
        self._power = alpha / (alpha - 1)
        # log(e^y - 1) at y = 1 / (1 - alpha), which e^y alone would overflow for alpha near 1.
        end = self.domain[1]
        self._shift = end + math.log1p(-math.exp(-end)) if alpha < 1 else 0.0

    def f(self, u: Tensor) -> Tensor:
        # One function written twice: each form is free of the cancellation near its limit, a = 0 or a = 1.
        a, log_u = self.alpha, u.log()
        if abs(a) < 0.5:
            return (torch.expm1(a * log_u) / a - (u - 1)) / (a - 1)
        return (u * torch.expm1((a - 1) * log_u) / (a - 1) - (u - 1)) / a

    def slope(self, u: Tensor) -> Tensor:
        # A power has its own derivative; expm1's loses u^(a-1) beside 1, and with it f'' for small u.
        power = self.alpha - 1
        return (u**power - 1) / power if abs(power) > 0.5 else torch.expm1(power * u.log()) / power

    def conjugate(self, t: Tensor) -> Tensor:
        base = (1 + (self.alpha - 1) * t).clamp(min=0.0)
        return infinite_outside(self.domain, t, (base**self._power - 1) / self.alpha)

    def activation(self, v: Tensor) -> Tensor:
        return v if self.alpha > 1 else self.domain[1] + logsigmoid(v - self._shift)

    def terms(self, v: Tensor) -> tuple[Tensor, Tensor]:
        t = self.activation(v)
        if self.alpha > 1:
            return t, ((1 + (self.alpha - 1) * v).abs() ** self._power - 1) / self.alpha
        # b = (1 - a) log(1 + e^-v), of which t has lost the digits where v is large.
        log_base = math.log1p(-self.alpha) + log_softplus(self._shift - v)
        return t, torch.expm1(self._power * log_base) / self.alpha

    def ratio_terms(self, r: Tensor) -> tuple[Tensor, Tensor]:
        a = self.alpha
        return torch.expm1((a - 1) * r) / (a - 1), torch.expm1(a * r) / a


def _spelled(number: float) -> str:
    """A number in the letters of metric names: 0.5 is 0p5, -1 is m1."""
    return f"{number:g}".replace(".", "p").replace("-", "m").replace("+", "")


def log_softplus(x: Tensor) -> Tensor:
    """log log(1 + e^x) in the dtype of x, computed in float64.

    In the left tail log(1 + e^x) would underflow, and its inverse in the gradient overflow; there the result
    is x to float64's last digit. In float32 the inverse would spoil large gradients from x = -15 on.
    """
    tail = -40.0
    wide = x.double()
    # The clamp keeps the branch that is not taken finite, and with it the gradient.
    near = (-logsigmoid(-wide.clamp(min=tail))).log()
    return torch.where(wide < tail, wide, near).to(x.dtype)
