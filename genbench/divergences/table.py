"""The table of f-divergences: one small class for each row; those with a parameter are in `families`.

Each states f, f', f*, and two ways to read a critic's output: as a logit v mapped onto dom f* by g_f
(`terms`), or as a log density ratio r (`ratio_terms`). Both are closed forms that never pass through a
number larger than their result: exponentials of what cancels are not taken, and e^x - 1 is expm1.

"Pearson" and "Neyman" change places between Nowozin et al.'s table 1, kexue.fm 6016 and textbooks. Here
Pearson is f(u) = (u - 1)^2, the integral of (p - q)^2 / q: trust a class's f and not its name alone.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from genbench.divergences.divergence import Conjugated, infinite_outside
from genbench.divergences.families import Alpha as Alpha
from genbench.divergences.families import WeightedJensenShannon as WeightedJensenShannon

LOG_2 = math.log(2)


class KL(Conjugated):
    """Kullback and Leibler's: f = u log u, f' = 1 + log u, f* = e^(t-1) on R, g_f = v.

    Its bound is Nguyen, Wainwright and Jordan's. The variance of E_Q[e^(T-1)] grows like e^KL.
    """

    name = "kl"
    domain = (-math.inf, math.inf)

    def f(self, u: Tensor) -> Tensor:
        return u * u.log()

    def slope(self, u: Tensor) -> Tensor:
        return 1 + u.log()

    def conjugate(self, t: Tensor) -> Tensor:
        return (t - 1).exp()

    def activation(self, v: Tensor) -> Tensor:
        return v

    def ratio_terms(self, r: Tensor) -> tuple[Tensor, Tensor]:
        return 1 + r, r.exp()


class ReverseKL(Conjugated):
    """KL(Q||P): f = -log u, f' = -1/u, f* = -1 - log(-t) on t < 0, g_f = -e^-v."""

    name = "rkl"
    domain = (-math.inf, 0.0)

    def f(self, u: Tensor) -> Tensor:
        return -u.log()

    def slope(self, u: Tensor) -> Tensor:
        return -1 / u

    def conjugate(self, t: Tensor) -> Tensor:
        return infinite_outside(self.domain, t, -1 - (-t).log())

    def activation(self, v: Tensor) -> Tensor:
        return -(-v).exp()

    def terms(self, v: Tensor) -> tuple[Tensor, Tensor]:
        return self.activation(v), v - 1

    def ratio_terms(self, r: Tensor) -> tuple[Tensor, Tensor]:
        return self.terms(r)  # f'(e^r) = -e^-r is g_f itself


class Pearson(Conjugated):
    """Pearson's chi squared: f = (u-1)^2, f' = 2(u-1), g_f = v, f* = t^2/4 + t (t >= -2; -1 below) on R.

    `conjugate` is exact. `terms` keeps the quadratic for all t: it is never below f*, so the bound holds,
    and no tighter critic is lost, since T* >= -2. On the flat piece a critic that has sunk below -2 would
    get no gradient on Q's samples to bring it back, nor a generator one to follow; the quadratic pulls to -2.
    """

    name = "pearson"
    domain = (-math.inf, math.inf)

    def f(self, u: Tensor) -> Tensor:
        return (u - 1).square()

    def slope(self, u: Tensor) -> Tensor:
        return 2 * (u - 1)

    def conjugate(self, t: Tensor) -> Tensor:
        clamped = t.clamp(min=-2.0)
        return clamped.square() / 4 + clamped

    def activation(self, v: Tensor) -> Tensor:
        return v

    def terms(self, v: Tensor) -> tuple[Tensor, Tensor]:
        return v, v.square() / 4 + v

    def ratio_terms(self, r: Tensor) -> tuple[Tensor, Tensor]:
        return 2 * torch.expm1(r), torch.expm1(2 * r)


class Neyman(Conjugated):
    """Neyman's chi squared: f = (1-u)^2 / u, f' = 1 - 1/u^2, f* = 2 - 2 sqrt(1-t) on t <= 1, g_f = 1 - e^-v.

    At the end t = 1 the conjugate is 2.
    """

    name = "neyman"
    domain = (-math.inf, 1.0)

    def f(self, u: Tensor) -> Tensor:
        return (1 - u).square() / u

    def slope(self, u: Tensor) -> Tensor:
        return 1 - u**-2

    def conjugate(self, t: Tensor) -> Tensor:
        return infinite_outside(self.domain, t, 2 - 2 * (1 - t).sqrt())

    def activation(self, v: Tensor) -> Tensor:
        return -torch.expm1(-v)

    def terms(self, v: Tensor) -> tuple[Tensor, Tensor]:
        return -torch.expm1(-v), -2 * torch.expm1(-v / 2)

    def ratio_terms(self, r: Tensor) -> tuple[Tensor, Tensor]:
        return self.terms(2 * r)  # g_f(2r) = 1 - e^-2r = f'(e^r)


class SquaredHellinger(Conjugated):
    """f = (sqrt(u)-1)^2, f' = 1 - 1/sqrt(u), f* = t/(1-t) on t < 1, g_f = 1 - e^-v.

    The bound is 2 - E_P e^-v - E_Q e^v, kexue.fm 6016's Hellinger GAN.
    """

    name = "hellinger"
    domain = (-math.inf, 1.0)

    def f(self, u: Tensor) -> Tensor:
        return (u.sqrt() - 1).square()

    def slope(self, u: Tensor) -> Tensor:
        return 1 - u.rsqrt()

    def conjugate(self, t: Tensor) -> Tensor:
        return infinite_outside(self.domain, t, t / (1 - t))

    def activation(self, v: Tensor) -> Tensor:
        return -torch.expm1(-v)

    def terms(self, v: Tensor) -> tuple[Tensor, Tensor]:
        return -torch.expm1(-v), torch.expm1(v)

    def ratio_terms(self, r: Tensor) -> tuple[Tensor, Tensor]:
        return self.terms(r / 2)  # g_f(r/2) = 1 - e^(-r/2) = f'(e^r)


class JensenShannon(Conjugated):
    """Twice the Jensen-Shannon divergence, as Nowozin et al. list it; at most 2 log 2.

    f = u log u - (u+1) log((1+u)/2), f' = log(2u/(1+u)), f* = -log(2 - e^t) on t < log 2,
    g_f = log 2 - log(1 + e^-v). JSD itself is `WeightedJensenShannon(prior=0.5)`, and kexue.fm 6016's f.
    """

    name = "js"
    domain = (-math.inf, LOG_2)

    def f(self, u: Tensor) -> Tensor:
        return u * u.log() - (u + 1) * (torch.log1p(u) - LOG_2)

    def slope(self, u: Tensor) -> Tensor:
        return LOG_2 - torch.log1p(1 / u)

    def conjugate(self, t: Tensor) -> Tensor:
        # 2 - e^t = -2 expm1(t - log 2), which keeps its digits as t approaches log 2.
        return infinite_outside(self.domain, t, -LOG_2 - (-torch.expm1(t - LOG_2)).log())

    def activation(self, v: Tensor) -> Tensor:
        return LOG_2 + logsigmoid(v)

    def terms(self, v: Tensor) -> tuple[Tensor, Tensor]:
        return LOG_2 + logsigmoid(v), -LOG_2 - logsigmoid(-v)

    def ratio_terms(self, r: Tensor) -> tuple[Tensor, Tensor]:
        return self.terms(r)  # the logit of a Bayes classifier is the log ratio


class GAN(Conjugated):
    """Goodfellow et al.'s (2014) game: D_GAN = 2 JSD - log 4, so f(1) = -log 4 and not 0.

    f = u log u - (u+1) log(u+1), f' = log(u/(1+u)), f* = -log(1 - e^t) on t < 0, g_f = -log(1 + e^-v): the
    terms are log D and -log(1 - D) of a discriminator D = sigmoid(v).
    """

    name = "gan"
    domain = (-math.inf, 0.0)

    def f(self, u: Tensor) -> Tensor:
        return u * u.log() - (u + 1) * torch.log1p(u)

    def slope(self, u: Tensor) -> Tensor:
        return -torch.log1p(1 / u)

    def conjugate(self, t: Tensor) -> Tensor:
        return infinite_outside(self.domain, t, -(-torch.expm1(t)).log())

    def activation(self, v: Tensor) -> Tensor:
        return logsigmoid(v)

    def terms(self, v: Tensor) -> tuple[Tensor, Tensor]:
        return logsigmoid(v), -logsigmoid(-v)

    def ratio_terms(self, r: Tensor) -> tuple[Tensor, Tensor]:
        return self.terms(r)


class TotalVariation(Conjugated):
    """f = |u-1| / 2, f' = sign(u-1) / 2, f* = t on [-1/2, 1/2], g_f = tanh(v) / 2.

    Straight but for its corner: f'' = 0, so `ratio_terms` would carry no gradient and `LogRatio` refuses it.
    The ends of dom f* belong to it, and T* lies on them: g_f only approaches the optimum.
    """

    name = "tv"
    domain = (-0.5, 0.5)

    def f(self, u: Tensor) -> Tensor:
        return (u - 1).abs() / 2

    def slope(self, u: Tensor) -> Tensor:
        return (u - 1).sign() / 2

    def conjugate(self, t: Tensor) -> Tensor:
        return infinite_outside(self.domain, t, t)

    def activation(self, v: Tensor) -> Tensor:
        return v.tanh() / 2

    def terms(self, v: Tensor) -> tuple[Tensor, Tensor]:
        t = self.activation(v)
        return t, t


class Jeffreys(Conjugated):
    """KL(P||Q) + KL(Q||P): f = (u-1) log u, f' = 1 + log u - 1/u, g_f = v.

    f* = W(e^(1-t)) + 1/W(e^(1-t)) + t - 2 on R with W Lambert's function, principal branch. W = 1/u where
    f'(u) = t; with l = log u this is f* = e^l - 1 + l, free of the cancellation of W with t - 2 and of the
    overflow of e^(1-t).
    """

    name = "jeffreys"
    domain = (-math.inf, math.inf)

    def f(self, u: Tensor) -> Tensor:
        return (u - 1) * u.log()

    def slope(self, u: Tensor) -> Tensor:
        return 1 + u.log() - 1 / u

    def conjugate(self, t: Tensor) -> Tensor:
        log_u: Tensor = _JeffreysLogRatio.apply(t.double())
        return (torch.expm1(log_u) + log_u).to(t.dtype)

    def activation(self, v: Tensor) -> Tensor:
        return v

    def ratio_terms(self, r: Tensor) -> tuple[Tensor, Tensor]:
        return r - torch.expm1(-r), torch.expm1(r) + r


class _JeffreysLogRatio(torch.autograd.Function):
    """l = -log W(e^(1-t)), the root of h(l) = l - expm1(-l) = t: the log ratio at which f' is t. float64.

    h is increasing and concave, so that Newton's steps from the left of the root climb to it and never pass.
    dl/dt = 1 / h'(l), a function of the output alone: exact, and differentiable once more.
    """

    _STEPS = 8  # six reach rounding from the starts below, for every t

    @staticmethod
    def forward(ctx: Any, t: Tensor) -> Tensor:
        # Left of the root: l >= t - 1 and, since e^-l < 1 - t for l < 0, l >= -log(1 - t).
        log_u = torch.where(t > 0, (t - 1).clamp(min=0.0), -torch.log1p(-t.clamp(max=0.0)))
        for _ in range(_JeffreysLogRatio._STEPS):
            log_u = log_u - (log_u - torch.expm1(-log_u) - t) / (1 + (-log_u).exp())
        ctx.save_for_backward(log_u)
        return log_u

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # type: ignore[override]
        (log_u,) = ctx.saved_tensors
        return gradient * log_u.sigmoid()  # 1 / (1 + e^-l)
