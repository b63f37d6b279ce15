"""How a critic's raw output becomes the two terms of the bound E_P[T] - E_Q[f*(T)].

    Activation   T = g_f(v): the output is a logit that g_f maps onto dom f* (Nowozin et al. 2016, eq. 6)
    LogRatio     T = f'(e^r): the output estimates log p/q, whatever the divergence

With LogRatio critics of different divergences estimate the same function, and f* is not needed.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from genbench.divergences.divergence import Conjugated, Divergence
from genbench.errors import UserError


class Head(Protocol):
    """A reading of a critic's output."""

    def check(self, divergence: Divergence) -> None:
        """Raises UserError, saying what to type, where this head cannot serve `divergence`."""

    def terms(self, divergence: Divergence, v: Tensor) -> tuple[Tensor, Tensor]:
        """(T, f*(T)) of outputs v of any shape; in float32 for half-precision v, else in the dtype of v."""


class Activation:
    """T = g_f(v), for divergences whose conjugate is known."""

    def check(self, divergence: Divergence) -> None:
        self._conjugated(divergence)

    def terms(self, divergence: Divergence, v: Tensor) -> tuple[Tensor, Tensor]:
        return self._conjugated(divergence).terms(_wide(v))

    def _conjugated(self, divergence: Divergence) -> Conjugated:
        if isinstance(divergence, Conjugated):
            return divergence
        raise UserError(
            f"the divergence {divergence.name!r} has no activation onto the domain of its conjugate "
            "(expected a genbench.divergences.divergence.Conjugated); type head=log_ratio, which needs f and "
            "its slope alone"
        )


class LogRatio:
    """T = f'(e^r), for divergences with f'' > 0: elsewhere T does not move with r and nothing is learnt."""

    _REACH = 10.0  # log ratios looked at, each way; further out f'' of steep divergences underflows
    _POINTS = 2001

    def check(self, divergence: Divergence) -> None:
        # f'' comes from autograd, which is what training will see. Differences of f' would vanish in
        # rounding wherever f' approaches a limit, as it does for most rows as u grows.
        with torch.inference_mode(False), torch.enable_grad():
            u = torch.linspace(-self._REACH, self._REACH, self._POINTS, dtype=torch.float64).exp()
            u.requires_grad_()
            slope = divergence.slope(u)
            curvature = torch.zeros_like(u)
            if slope.requires_grad:
                (curvature,) = torch.autograd.grad(slope.sum(), u, retain_graph=True)
            value = divergence.f(u)
            (derivative,) = torch.autograd.grad(value.sum(), u) if value.requires_grad else (curvature,)
        self._require_derivative(divergence, u, slope, derivative)
        bent = curvature > 0
        if not bool(bent.all()):
            first = int((~bent).nonzero()[0])
            found = f"f'' = {curvature[first].item():g} at u = {u[first].item():.3g}"
            if bool((curvature < 0).any()):
                raise UserError(
                    f"the divergence {divergence.name!r} has {found}: an f-divergence needs a convex f"
                )
            advice = "; type head=activation" if isinstance(divergence, Conjugated) else ""
            raise UserError(
                f"the divergence {divergence.name!r} has {found}, and a log-ratio head learns only where "
                f"f'' > 0{advice}"
            )

    def _require_derivative(
        self, divergence: Divergence, u: Tensor, slope: Tensor, derivative: Tensor
    ) -> None:
        """Raises UserError where `slope` is not the derivative of `f`: the likeliest slip in one's own."""
        scale = 1e-6 * (1 + derivative.abs())
        wrong = (slope - derivative).abs() > scale
        if bool(wrong.any()):
            at = int(wrong.nonzero()[len(wrong.nonzero()) // 2])
            said, true = slope[at].item(), derivative[at].item()
            raise UserError(
                f"the divergence {divergence.name!r} says slope({u[at].item():.3g}) = {said:.6g}, but the "
                f"derivative of its f is {true:.6g} there; correct slope, or f"
            )

    def terms(self, divergence: Divergence, v: Tensor) -> tuple[Tensor, Tensor]:
        return divergence.ratio_terms(_wide(v))


def _wide(v: Tensor) -> Tensor:
    """Half precision has neither the range nor the digits for exponentials of logits."""
    return v if v.dtype == torch.float64 else v.float()
