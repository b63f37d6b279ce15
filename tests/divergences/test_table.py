"""The table of f-divergences: convex duality, closed forms against compositions, divergences of Gaussians."""

from __future__ import annotations

import math

import pytest
import torch
from scipy.special import lambertw
from torch import Tensor

from genbench.divergences.divergence import Conjugated, Divergence
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

ROWS: list[Conjugated] = [
    KL(),
    ReverseKL(),
    Pearson(),
    Neyman(),
    SquaredHellinger(),
    JensenShannon(),
    WeightedJensenShannon(0.3),
    WeightedJensenShannon(0.9),
    GAN(),
    TotalVariation(),
    Jeffreys(),
    Alpha(-1.0),
    Alpha(-0.3),
    Alpha(0.5),
    Alpha(0.7),
    Alpha(1.5),
    Alpha(2.0),
    Alpha(3.0),
]
CURVED = [row for row in ROWS if row.name != "tv"]


def label(row: Conjugated) -> str:
    parameter = getattr(row, "alpha", getattr(row, "prior", None))
    return row.name if parameter is None else f"{row.name}({parameter:g})"


every_row = pytest.mark.parametrize("row", ROWS, ids=label)
curved_rows = pytest.mark.parametrize("row", CURVED, ids=label)


def line(low: float, high: float, n: int = 121) -> Tensor:
    return torch.linspace(low, high, n, dtype=torch.float64)


def reaches(row: Conjugated, v: Tensor) -> Tensor:
    """Where T = g_f(v) is a slope of f at all. For the rows with f'(0) > -infinity and g_f = v, not below."""
    if row.name == "pearson":
        return v > -2
    return v > -1 / (row.alpha - 1) if isinstance(row, Alpha) and row.alpha > 1 else torch.ones_like(v) > 0


# ---------------------------------------------------------------------------------------------- duality


@every_row
def test_fenchel_and_young(row: Conjugated) -> None:
    """f(u) + f*(t) >= ut everywhere in dom f*, with equality where t is the slope at u and nowhere else."""
    u = line(-6, 6, 120).exp()  # an even number leaves out u = 1: at TV's corner every t touches
    slope = row.slope(u)
    t = torch.cat([row.activation(line(-6, 6)), slope])
    gap = row.f(u)[:, None] + row.conjugate(t) - u[:, None] * t
    scale = 1 + row.f(u).abs()[:, None] + row.conjugate(t).abs() + (u[:, None] * t).abs()
    touching = t == slope[:, None]
    assert bool(touching.any(dim=1).all())
    assert bool((gap.abs() <= 1e-13 * scale)[touching].all())
    assert bool((gap > -1e-13 * scale).all())
    apart = (t - slope[:, None]).abs() > 1e-2 * (1 + t.abs())
    assert bool((gap > 1e-13 * scale)[apart].all())


@pytest.mark.parametrize("row", [Pearson(), Alpha(1.5), Alpha(2.0), Alpha(3.0)], ids=label)
def test_below_every_slope_the_conjugate_is_that_of_the_tangent_at_zero(row: Conjugated) -> None:
    at_zero = row.f(torch.tensor(1e-12, dtype=torch.float64))
    t = line(-9, -2.01)
    torch.testing.assert_close(row.conjugate(t), -at_zero.expand_as(t), rtol=1e-5, atol=0)
    # The safe pair goes on with a function above it, with a slope that leads back.
    _, safe = row.terms(t)
    assert bool((safe > row.conjugate(t)).all())
    assert bool((safe.diff() < 0).all())


@every_row
def test_the_conjugate_is_finite_in_its_domain_alone(row: Conjugated) -> None:
    low, high = row.domain
    assert bool(row.conjugate(row.activation(line(-20, 20))).isfinite().all())
    beyond = [end for end in (low - 0.01, high + 0.01, high + 3.0) if math.isfinite(end)]
    assert bool((row.conjugate(torch.tensor(beyond, dtype=torch.float64)) == math.inf).all())


@every_row
def test_activations_increase_onto_the_interior_of_the_domain(row: Conjugated) -> None:
    low, high = row.domain
    t = row.activation(line(-17.5, 17.5))
    assert bool((t.diff() > 0).all())
    assert low < float(t[0])
    assert float(t[-1]) < high
    assert high - float(t[-1]) < 1e-6 or (high == math.inf and float(t[-1]) == 17.5)
    far = float(row.activation(torch.tensor(-1000.0, dtype=torch.float64)))
    assert float(t[0]) - low < 1e-6 or (low == -math.inf and far < -900)


@every_row
def test_f_is_convex_and_slope_is_its_derivative(row: Conjugated) -> None:
    u = line(-6, 6, 120).exp().requires_grad_()  # without u = 1, TV's corner
    (found,) = torch.autograd.grad(row.f(u).sum(), u)
    torch.testing.assert_close(row.slope(u).detach(), found, rtol=1e-9, atol=1e-9)
    assert bool((row.slope(u).diff() >= 0).all())
    if row.name != "tv":
        (curvature,) = torch.autograd.grad(row.slope(u).sum(), u)
        assert bool((curvature > 0).all())


# ----------------------------------------------------------------------------------------- closed forms


@every_row
def test_terms_are_the_activation_and_its_conjugate(row: Conjugated) -> None:
    v = line(-8, 8)
    v = v[reaches(row, v)]
    t, conjugate = row.terms(v)
    torch.testing.assert_close(t, row.activation(v), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(conjugate, row.conjugate(row.activation(v)), rtol=1e-9, atol=1e-9)


@curved_rows
def test_ratio_terms_are_the_tangent_and_its_intercept(row: Conjugated) -> None:
    r = line(-5, 5)
    t, conjugate = row.ratio_terms(r)
    generic = Divergence.ratio_terms(row, r)
    torch.testing.assert_close(t, generic[0], rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(conjugate, generic[1], rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(conjugate, row.conjugate(t), rtol=1e-7, atol=1e-9)


def test_jeffreys_conjugate_is_lamberts() -> None:
    t = line(-50, 50)
    w = torch.from_numpy(lambertw(torch.exp(1 - t).numpy()).real)
    torch.testing.assert_close(Jeffreys().conjugate(t), w + 1 / w + t - 2, rtol=1e-12, atol=1e-11)


def test_jeffreys_conjugate_has_the_ratio_for_its_slope() -> None:
    for dtype in (torch.float32, torch.float64):
        t = torch.linspace(-50, 50, 1001, dtype=dtype, requires_grad=True)
        (u,) = torch.autograd.grad(Jeffreys().terms(t)[1].sum(), t)
        assert u.dtype == dtype
        assert bool(u.isfinite().all())
        tight = 1e-12 if dtype == torch.float64 else 1e-5
        torch.testing.assert_close(Jeffreys().slope(u), t.detach(), rtol=tight, atol=tight)


@every_row
def test_gradients_of_terms_are_exact_to_second_order(row: Conjugated) -> None:
    v = torch.tensor([-2.9, -1.7, -0.4, 0.3, 1.9, 2.8], dtype=torch.float64, requires_grad=True)
    for terms in (row.terms, row.ratio_terms) if row.name != "tv" else (row.terms,):
        assert torch.autograd.gradcheck(terms, v)
        # Weights of its own, or gradgradcheck would draw them anew for each run.
        weights = tuple(torch.linspace(1, 2, 6, dtype=torch.float64, requires_grad=True) for _ in range(2))
        assert torch.autograd.gradgradcheck(terms, v, weights)


@every_row
def test_gradients_of_terms_are_those_of_the_composition(row: Conjugated) -> None:
    v = line(-8, 8)
    v = v[reaches(row, v)].requires_grad_()
    (found,) = torch.autograd.grad(row.terms(v)[1].sum(), v)
    (composed,) = torch.autograd.grad(row.conjugate(row.activation(v)).sum(), v)
    torch.testing.assert_close(found, composed, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("row", [*ROWS, Alpha(0.9)], ids=label)
def test_float32_is_safe_for_extreme_logits(row: Conjugated) -> None:
    """Values and gradients are those of float64 wherever float32 can hold them, from either head."""
    v = torch.linspace(-30, 30, 601, requires_grad=True)
    wide = v.detach().double().requires_grad_()
    for terms in (row.terms, row.ratio_terms) if row.name != "tv" else (row.terms,):
        for found, expected in zip(terms(v), terms(wide)):
            holds = expected.abs() < 1e38
            assert found.dtype == torch.float32
            torch.testing.assert_close(found.double()[holds], expected[holds], rtol=2e-5, atol=2e-6)
            (gradient,) = torch.autograd.grad(found.sum(), v, retain_graph=True)
            (exact,) = torch.autograd.grad(expected.sum(), wide, retain_graph=True)
            holds &= exact.abs() < 1e38
            torch.testing.assert_close(gradient.double()[holds], exact[holds], rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize("row", [JensenShannon(), WeightedJensenShannon(0.3), GAN()], ids=label)
def test_saturating_rows_are_linear_as_far_as_float32_goes(row: Conjugated) -> None:
    v = torch.tensor([-1e4, -200.0, 200.0, 1e4], requires_grad=True)
    t, conjugate = row.terms(v)
    rest = 1 - row.prior if isinstance(row, WeightedJensenShannon) else 1.0
    for term, slopes in ((t, [1, 1, 0, 0]), (conjugate, [0, 0, rest, rest])):
        (gradient,) = torch.autograd.grad(term.sum(), v)
        torch.testing.assert_close(gradient, torch.tensor(slopes, dtype=torch.float32))
    assert bool(conjugate.isfinite().all())


# ---------------------------------------------------------------------------- divergences of known laws

X = line(-15, 20, 200_001)
DX = 35 / 200_000


def normal(mean: float) -> Tensor:
    return torch.exp(-((X - mean) ** 2) / 2) / math.sqrt(2 * math.pi)


def quadrature(row: Divergence, m: float) -> float:
    """D_f(N(m, 1) || N(0, 1))."""
    return float((normal(0) * row.f((m * X - m * m / 2).exp())).sum() * DX)


def bound(m: float, t: Tensor, conjugate: Tensor) -> float:
    return float((normal(m) * t - normal(0) * conjugate).sum() * DX)


LISTED = [
    (KL(), 0.5),
    (ReverseKL(), 0.5),
    (Pearson(), 1.718282),
    (Neyman(), 1.718282),
    (SquaredHellinger(), 0.235006),
    (TotalVariation(), 0.382925),
    (Jeffreys(), 1.0),
    (JensenShannon(), 0.222843),
    (GAN(), -1.163451),
    (WeightedJensenShannon(0.3), 0.094910),
    (Alpha(0.5), 0.470012),
    (Alpha(2.0), 0.859141),
    (Alpha(-1.0), 0.859141),
    (Alpha(3.0), 3.180923),
]


@pytest.mark.parametrize(("row", "expected"), LISTED, ids=[label(row) for row, _ in LISTED])
def test_listed_divergences_of_shifted_normals(row: Conjugated, expected: float) -> None:
    assert quadrature(row, 1.0) == pytest.approx(expected, abs=6e-7)


@pytest.mark.parametrize("m", [-0.5, 0.3, 1.4])
def test_divergences_of_shifted_normals_have_closed_forms(m: float) -> None:
    square = m * m
    closed: list[tuple[Conjugated, float]] = [
        (KL(), square / 2),
        (ReverseKL(), square / 2),
        (Pearson(), math.expm1(square)),
        (Neyman(), math.expm1(square)),
        (SquaredHellinger(), -2 * math.expm1(-square / 8)),
        (TotalVariation(), math.erf(abs(m) / 2 / math.sqrt(2))),
        (Jeffreys(), square),
        *[(Alpha(a), math.expm1(a * (a - 1) * square / 2) / (a * (a - 1))) for a in (-1.0, 0.5, 1.5, 2.5)],
    ]
    for row, expected in closed:
        assert quadrature(row, m) == pytest.approx(expected, rel=1e-7)


@every_row
def test_the_optimal_critic_attains_the_divergence_and_no_other_does(row: Conjugated) -> None:
    m = 1.0
    r = m * X - m * m / 2
    exact, best = quadrature(row, m), row.slope(r.exp())
    assert bound(m, best, row.conjugate(best)) == pytest.approx(exact, abs=1e-6)
    middle = row.slope(torch.ones((), dtype=torch.float64))
    nearer = best + 0.1 * torch.sin(X) ** 2 * (middle - best)  # dom f* is an interval: still inside
    assert bound(m, nearer, row.conjugate(nearer)) < exact - 1e-5
    if row.name == "tv":
        return
    assert bound(m, *row.ratio_terms(r)) == pytest.approx(exact, abs=1e-6)
    for delta in (0.1, -0.1, 0.1 * torch.sin(X)):
        assert bound(m, *row.ratio_terms(r + delta)) < exact - 1e-5


# ------------------------------------------------------------------------------------------- identities


def test_gans_row_is_jensen_and_shannons_less_log_four() -> None:
    for m in (0.3, 1.0, 2.0):
        shifted = quadrature(JensenShannon(), m) - math.log(4)
        assert quadrature(GAN(), m) == pytest.approx(shifted, abs=1e-12)


@pytest.mark.parametrize(("limit", "row"), [(0.0, ReverseKL()), (1.0, KL())], ids=["rkl", "kl"])
def test_alpha_has_kullback_and_leibler_for_limits(limit: float, row: Conjugated) -> None:
    u = line(-4, 4).exp()
    affine = (u - 1) * (1 if limit == 0 else -1)
    for distance in (1e-4, -1e-4, 1e-9, -1e-9):
        near = Alpha(limit + distance)
        allowed = 20 * abs(distance) * (1 + row.f(u).abs())
        assert bool(((near.f(u) - row.f(u) - affine).abs() <= allowed + 1e-12).all())
        assert quadrature(near, 1.0) == pytest.approx(quadrature(row, 1.0), abs=abs(distance) + 1e-9)


@pytest.mark.parametrize(
    ("row", "factor", "other"),
    [
        (Alpha(2.0), 0.5, Pearson()),
        (Alpha(0.5), 2.0, SquaredHellinger()),
        (Alpha(-1.0), 0.5, Neyman()),
        (WeightedJensenShannon(), 0.5, JensenShannon()),
    ],
    ids=["pearson", "hellinger", "neyman", "js"],
)
def test_rows_that_are_multiples_of_each_other(row: Conjugated, factor: float, other: Conjugated) -> None:
    u = line(-4, 4).exp()
    torch.testing.assert_close(row.f(u), factor * other.f(u), rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(row.slope(u), factor * other.slope(u), rtol=1e-10, atol=1e-12)
    t = other.slope(u)
    torch.testing.assert_close(row.conjugate(factor * t), factor * other.conjugate(t), rtol=1e-8, atol=1e-10)


def test_jeffreys_is_the_sum_of_both_directions() -> None:
    u = line(-4, 4).exp()
    torch.testing.assert_close(Jeffreys().f(u), KL().f(u) + ReverseKL().f(u))


P = torch.tensor([0.1, 0.2, 0.3, 0.4], dtype=torch.float64)
Q = torch.tensor([0.35, 0.05, 0.4, 0.2], dtype=torch.float64)


@every_row
def test_equal_laws_are_at_f_of_one(row: Conjugated) -> None:
    expected = -math.log(4) if row.name == "gan" else 0.0
    assert float(row.f(torch.ones((), dtype=torch.float64))) == pytest.approx(expected, abs=1e-15)
    assert float(row.value(P, P)) == pytest.approx(expected, abs=1e-15)
    assert quadrature(row, 0.0) == pytest.approx(expected, abs=1e-12)


@every_row
def test_categorical_bounds_are_tight(row: Conjugated) -> None:
    t = row.slope(P / Q)
    tight = (P * t).sum() - (Q * row.conjugate(t)).sum()
    assert float(tight) == pytest.approx(float(row.value(P, Q)), abs=1e-14)
    assert float(row.value(P, Q)) > float(row.value(P, P))


def test_categorical_laws_must_be_positive_and_sum_to_one() -> None:
    with pytest.raises(ValueError, match=r"minimum 0 and sum 1"):
        KL().value(torch.tensor([0.0, 1.0]), torch.tensor([0.5, 0.5]))
    with pytest.raises(ValueError, match=r"sum 1\.2"):
        KL().value(torch.tensor([0.5, 0.5]), torch.tensor([0.6, 0.6]))


# --------------------------------------------------------------------------------------------- settings


@pytest.mark.parametrize("prior", [0.0, 1.0, -0.3, math.pi, math.nan])
def test_priors_are_probabilities(prior: float) -> None:
    with pytest.raises(UserError, match=r"type prior=0\.5"):
        WeightedJensenShannon(prior)


@pytest.mark.parametrize("alpha", [0, 1, 0.0, 1.0, math.inf, math.nan])
def test_alphas_with_another_row_or_none_are_refused(alpha: float) -> None:
    with pytest.raises(UserError, match=r"rkl.*kl"):
        Alpha(alpha)


def test_names_tell_rows_apart() -> None:
    names = [row.name for row in ROWS]
    assert len(set(names)) == len(names)
    assert {"kl", "rkl", "pearson", "neyman", "hellinger", "js", "gan", "tv", "jeffreys"} <= set(names)
    assert [Alpha(0.5).name, Alpha(-1).name, WeightedJensenShannon(0.3).name] == [
        "alpha_0p5",
        "alpha_m1",
        "jsw_0p3",
    ]


@pytest.mark.parametrize("alpha", [-3.0, -0.5, 0.5, 0.9, 0.99, 0.9999, 1.5])
def test_a_critic_that_knows_nothing_starts_at_the_constant_tangent(alpha: float) -> None:
    """g_f(0) = f'(1) = 0 and f*(0) = 0, in float32 too."""
    for dtype in (torch.float64, torch.float32):
        t, conjugate = Alpha(alpha).terms(torch.zeros(1, dtype=dtype))
        scale = (1e-14 if dtype == torch.float64 else 1e-6) / min(1, abs(1 - alpha))
        assert abs(t.item()) < scale
        assert abs(conjugate.item()) < 10 * scale
