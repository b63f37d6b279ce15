"""What an f-divergence is, and the two terms of its variational lower bound.

    D_f(P||Q) = E_Q[f(p/q)],    f convex on u > 0,    f*(t) = sup_u {u t - f(u)}

A convex f is the upper envelope of its tangents, f(u) = max_t {t u - f*(t)}. Choosing one tangent for every
point x gives a bound that any critic T may enter (Nguyen, Wainwright and Jordan 2010; Nowozin, Cseke and
Tomioka 2016, eq. 4; kexue.fm 6016):

    D_f(P||Q) = max_T E_P[T(x)] - E_Q[f*(T(x))],    T*(x) = f'(p(x) / q(x))

A point is more likely real than fake where T(x) > f'(1). The constant critic T = f'(1) gives f(1), which is
also D_f(P||P): zero for every row of the table but GAN's.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor


class Divergence(ABC):
    """D_f(P||Q) = E_Q[f(p/q)]. One's own needs a name, f and f' alone; tensors are elementwise throughout.

    name: lower case, as metric names and logs carry it.
    """

    name: str

    @abstractmethod
    def f(self, u: Tensor) -> Tensor:
        """f(u) for density ratios u = p/q > 0, floating, of any shape."""

    @abstractmethod
    def slope(self, u: Tensor) -> Tensor:
        """f'(u) for u > 0, made of differentiable operations: training differentiates it once more."""

    def ratio_terms(self, r: Tensor) -> tuple[Tensor, Tensor]:
        """(T, f*(T)) at T = f'(e^r), for a critic whose output r estimates log p/q; in the dtype of r.

            T = f'(e^r),    f*(T) = e^r f'(e^r) - f(e^r)

        No conjugate is needed: a tangent's intercept is its own. Evaluated in float64, in which e^r lasts to
        r = 709; rows of the table have closed forms in the dtype of r.
        """
        u = r.double().exp()
        slope = self.slope(u)
        return slope.to(r.dtype), (u * slope - self.f(u)).to(r.dtype)

    def value(self, p: Tensor, q: Tensor) -> Tensor:
        """D_f(p||q) = sum_i q_i f(p_i / q_i) of two categorical laws, a scalar in float64.

        p, q: [K], positive, each of sum 1 (ValueError otherwise): at zero some f are infinite.
        """
        p, q = p.double(), q.double()
        for law in (p, q):
            if not bool((law > 0).all()) or abs(float(law.sum()) - 1) > 1e-6:
                raise ValueError(
                    f"expected positive probabilities of sum 1, found minimum {float(law.min()):g} and sum "
                    f"{float(law.sum()):g}"
                )
        return (q * self.f(p / q)).sum()


class Conjugated(Divergence):
    """A divergence whose conjugate is known: a row of Nowozin et al.'s tables 1, 2 and 6.

    domain: (inf, sup) of dom f* = {t: f*(t) < infinity}. An end belongs to it where `conjugate` is finite
    there; beyond the ends `conjugate` is infinite.
    """

    domain: tuple[float, float]

    @abstractmethod
    def conjugate(self, t: Tensor) -> Tensor:
        """f*(t), exactly."""

    @abstractmethod
    def activation(self, v: Tensor) -> Tensor:
        """g_f(v): smooth, increasing, from all reals onto the interior of dom f*. Larger v: more real."""

    def terms(self, v: Tensor) -> tuple[Tensor, Tensor]:
        """(T, f*(T)) at T = g_f(v) for a critic's logits v of any shape, in the dtype of v.

        Rows override it where composing f* with g_f would round or overflow on the way.
        """
        t = self.activation(v)
        return t, self.conjugate(t)


def infinite_outside(domain: tuple[float, float], t: Tensor, value: Tensor) -> Tensor:
    """`value`, a formula for f*(t), and infinity where t is beyond the ends of dom f*."""
    low, high = domain
    return torch.where((t < low) | (t > high), torch.inf, value)
