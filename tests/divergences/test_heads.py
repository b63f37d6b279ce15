"""Heads: which divergence each serves, what it refuses, and that one's own divergence needs two formulas."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from genbench.divergences.divergence import Divergence
from genbench.divergences.heads import Activation, LogRatio
from genbench.divergences.table import (
    GAN,
    KL,
    Alpha,
    Jeffreys,
    JensenShannon,
    Neyman,
    Pearson,
    ReverseKL,
    SquaredHellinger,
    TotalVariation,
    WeightedJensenShannon,
)
from genbench.errors import UserError


class LeCam(Divergence):
    """The triangular discrimination, as a user would write it."""

    name = "lecam"

    def f(self, u: Tensor) -> Tensor:
        return (u - 1) ** 2 / (u + 1)

    def slope(self, u: Tensor) -> Tensor:
        return (u - 1) * (u + 3) / (u + 1) ** 2


class Huber(Divergence):
    """Bent near u = 1 and straight further out."""

    name = "huber"

    def f(self, u: Tensor) -> Tensor:
        distance = (u - 1).abs()
        return torch.where(distance < 0.5, distance**2 / 2, 0.5 * distance - 0.125)

    def slope(self, u: Tensor) -> Tensor:
        return (u - 1).clamp(-0.5, 0.5)


class Constant(Huber):
    def f(self, u: Tensor) -> Tensor:
        return 0.5 * (u - 1)

    def slope(self, u: Tensor) -> Tensor:
        return torch.full_like(u, 0.5)


CURVED: list[Divergence] = [
    KL(),
    ReverseKL(),
    Pearson(),
    Neyman(),
    SquaredHellinger(),
    JensenShannon(),
    GAN(),
    Jeffreys(),
    LeCam(),
    *[WeightedJensenShannon(prior) for prior in (0.01, 0.5, 0.99)],
    *[Alpha(alpha) for alpha in (-20.0, -1.0, 0.5, 0.999, 1.5, 20.0)],
]


@pytest.mark.parametrize("divergence", CURVED, ids=lambda divergence: divergence.name)
def test_log_ratio_serves_every_curved_divergence(divergence: Divergence) -> None:
    LogRatio().check(divergence)
    with torch.inference_mode():
        LogRatio().check(divergence)


@pytest.mark.parametrize(
    "divergence", [TotalVariation(), Huber(), Constant()], ids=["tv", "huber", "constant"]
)
def test_log_ratio_refuses_straight_pieces(divergence: Divergence) -> None:
    with pytest.raises(UserError, match=r"f'' = 0 at u = .*only where"):
        LogRatio().check(divergence)


def test_activation_refuses_divergences_without_a_conjugate() -> None:
    Activation().check(TotalVariation())
    with pytest.raises(UserError, match=r"'lecam'.*type head=log_ratio"):
        Activation().check(LeCam())
    with pytest.raises(UserError, match="type head=log_ratio"):
        Activation().terms(LeCam(), torch.zeros(3))


def test_heads_read_outputs_as_their_names_say() -> None:
    v = torch.linspace(-2, 2, 9)
    for found, expected in zip(Activation().terms(KL(), v), (v, (v - 1).exp())):
        torch.testing.assert_close(found, expected)
    for found, expected in zip(LogRatio().terms(KL(), v), (1 + v, v.exp())):
        torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("head", [Activation(), LogRatio()], ids=["activation", "log_ratio"])
def test_half_precision_is_widened(head: Activation | LogRatio, dtype: torch.dtype) -> None:
    v = torch.tensor([-12.0, 12.0], dtype=dtype, requires_grad=True)
    t, conjugate = head.terms(SquaredHellinger(), v)
    assert t.dtype == conjugate.dtype == torch.float32
    assert bool(t.isfinite().all() and conjugate.isfinite().all())  # e^12 is infinite in float16
    assert head.terms(SquaredHellinger(), v.double())[0].dtype == torch.float64
    (t.sum() + conjugate.sum()).backward()
    assert v.grad is not None


def test_ones_own_divergence_needs_f_and_its_slope() -> None:
    """Its terms are the tangent's slope and intercept; where Le Cam's f* is known by hand they agree."""
    r = torch.linspace(-6, 6, 61, requires_grad=True)
    t, conjugate = LogRatio().terms(LeCam(), r)
    # f'(u) = 1 - 4 / (1+u)^2 is t at u = 2 / sqrt(1-t) - 1, where f*(t) = ut - f(u) = 4 - t - 4 sqrt(1-t).
    u = r.detach().double().exp()
    expected = 1 - 4 / (1 + u) ** 2
    torch.testing.assert_close(t.double(), expected, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(
        conjugate.double(), 4 - expected - 4 * (1 - expected).sqrt(), rtol=1e-5, atol=1e-6
    )
    assert t.dtype == torch.float32
    # d f*(T)/dr = f*'(T) dT/dr = u dT/dr
    (slope_t,) = torch.autograd.grad(t.sum(), r, retain_graph=True)
    (slope_conjugate,) = torch.autograd.grad(conjugate.sum(), r)
    torch.testing.assert_close(slope_conjugate, r.detach().exp() * slope_t, rtol=1e-5, atol=1e-6)


class Concave(Divergence):
    name = "concave"

    def f(self, u: Tensor) -> Tensor:
        return 1 - u.square()

    def slope(self, u: Tensor) -> Tensor:
        return -2 * u


class Slipped(Divergence):
    """f of the triangular discrimination with a slope that is not its own."""

    name = "slipped"

    def f(self, u: Tensor) -> Tensor:
        return (u - 1).square() / (u + 1)

    def slope(self, u: Tensor) -> Tensor:
        return 7 + 3 * u


def test_slips_in_ones_own_divergence_are_named() -> None:
    with pytest.raises(UserError, match="needs a convex f"):
        LogRatio().check(Concave())
    with pytest.raises(UserError, match=r"says slope\(.*but the derivative of its f"):
        LogRatio().check(Slipped())


def test_the_other_head_is_offered_only_where_it_would_serve() -> None:
    class Flat(Divergence):
        name = "flat"

        def f(self, u: Tensor) -> Tensor:
            return 0.5 * (u - 1).abs()

        def slope(self, u: Tensor) -> Tensor:
            return 0.5 * (u - 1).sign()

    with pytest.raises(UserError) as refusal:
        LogRatio().check(Flat())
    assert "head=activation" not in str(refusal.value)
