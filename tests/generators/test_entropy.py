"""The nearest-neighbour entropy: known entropies, exact symmetries, and where its gradient goes."""

from __future__ import annotations

import math

import pytest
import torch

from genbench.errors import UserError
from genbench.generators.entropy import NearestNeighbourEntropy
from genbench.ops.neighbours import Maximum

EULER_GAMMA = 0.5772156649015329


def normals(count: int, dimension: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(count, dimension, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    ("dimension", "count", "k", "mean", "std"),
    [(1, 2000, 1, 1.427, 0.020), (2, 4000, 3, 2.837, 0.023), (8, 4000, 3, 11.305, 0.046)],
)
def test_the_entropy_of_a_standard_normal(dimension, count, k, mean, std):
    """Mean and spread over seeds as measured independently; the truth is (d / 2) log(2 pi e) = 1.4189 d."""
    entropy = NearestNeighbourEntropy(k)
    found = torch.stack([entropy(normals(count, dimension, seed)) for seed in range(3)]).mean()
    assert abs(float(found) - mean) < 5 * std / 3**0.5


@pytest.mark.parametrize("distance", [None, Maximum()], ids=["Euclidean", "Maximum"])
def test_the_entropy_of_a_uniform_law_is_zero(distance):
    """[0, 1]^2 has entropy 0, in either distance; 4,000 points leave 0.02 of chance and of edge."""
    z = torch.rand(4000, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert abs(float(NearestNeighbourEntropy(3, distance)(z))) < 0.06


@pytest.mark.parametrize("k", [1, 4])
def test_scaling_adds_its_logarithm_and_rigid_motions_add_nothing(k):
    entropy, z = NearestNeighbourEntropy(k), normals(200, 5)
    rotation = torch.linalg.qr(normals(5, 5, seed=1)).Q
    assert torch.allclose(entropy(3 * z), entropy(z) + 5 * math.log(3), rtol=0, atol=1e-10)
    assert torch.allclose(entropy(z + 10), entropy(z), rtol=0, atol=1e-10)
    assert torch.allclose(entropy(z @ rotation), entropy(z), rtol=0, atol=1e-10)


@pytest.mark.parametrize("count", [10, 100, 1000])
def test_the_form_with_log_n_minus_1_differs_by_a_vanishing_constant(count):
    """For k = 1: (d / n) sum log eps + log B_d + log(n - 1) + gamma, kexue.fm 7343."""
    z = normals(count, 2)
    eps = (z[:, None] - z).square().sum(dim=-1).fill_diagonal_(math.inf).min(dim=1).values.sqrt()
    other = 2 * eps.log().mean() + math.log(math.pi) + math.log(count - 1) + EULER_GAMMA
    difference = float(NearestNeighbourEntropy()(z) - other)
    digamma = float(torch.special.digamma(torch.tensor(float(count), dtype=torch.float64)))
    assert abs(difference - (digamma - math.log(count - 1))) < 1e-10
    assert abs(difference) < 1 / count


@pytest.mark.parametrize("k", [1, 3])
def test_the_gradient_is_that_of_finite_differences(k):
    z = normals(12, 3).requires_grad_()
    assert torch.autograd.gradcheck(NearestNeighbourEntropy(k), z)


def test_the_gradient_reaches_both_ends():
    """Points 0, 1 and 3 on a line: eps = 1, 1, 2, and d(sum log eps) = (-2, 2 - 1/2, 1/2).

    The third point has the second as its neighbour and is nobody's; the second is pushed by both others.
    """
    z = torch.tensor([[0.0], [1.0], [3.0]], dtype=torch.float64, requires_grad=True)
    NearestNeighbourEntropy()(z).backward()
    assert z.grad is not None
    assert torch.allclose(3 * z.grad[:, 0], torch.tensor([-2, 1.5, 0.5], dtype=torch.float64))


def test_a_step_along_the_gradient_parts_neighbours():
    z = normals(300, 4).requires_grad_()
    entropy = NearestNeighbourEntropy()
    before = entropy(z)
    (gradient,) = torch.autograd.grad(before, z)
    rise = float(entropy(z.detach() + 1e-4 * gradient) - before.detach())
    assert abs(rise / (1e-4 * float(gradient.square().sum())) - 1) < 0.01


@pytest.mark.parametrize("distance", [None, Maximum()], ids=["Euclidean", "Maximum"])
def test_points_that_coincide_count_as_the_least_distance_and_are_not_pushed(distance):
    z = torch.tensor([[0.0, 0.0], [0.0, 0.0], [5.0, 5.0], [7.0, 5.0]], requires_grad=True)
    entropy = NearestNeighbourEntropy(distance=distance, least=1e-8)
    value = entropy(z)
    constant = entropy.distance.log_unit_ball(2) + 11 / 6  # psi(4) - psi(1)
    assert abs(float(value.detach()) - (2 * (2 * math.log(1e-8) + 2 * math.log(2)) / 4 + constant)) < 1e-4
    value.backward()
    assert z.grad is not None
    assert torch.equal(z.grad[:2], torch.zeros(2, 2))
    assert torch.allclose(z.grad[3], torch.tensor([0.5, 0.0]))


def test_autocast_does_not_lower_the_precision():
    z = normals(64, 8).float()
    with torch.autocast("cpu", torch.bfloat16):
        inside, of_half = NearestNeighbourEntropy()(z), NearestNeighbourEntropy()(z.bfloat16())
    assert inside.dtype == of_half.dtype == torch.float32
    assert torch.equal(inside, NearestNeighbourEntropy()(z))
    assert torch.equal(of_half, NearestNeighbourEntropy()(z.bfloat16().float()))


def test_too_few_points_are_refused():
    with pytest.raises(UserError, match=r"trainer\.batch_size"):
        NearestNeighbourEntropy(k=3)(torch.randn(3, 2))
    assert torch.isfinite(NearestNeighbourEntropy(k=3)(torch.randn(4, 2)))


@pytest.mark.parametrize("arguments", [{"k": 0}, {"least": 0.0}])
def test_senseless_settings_are_refused(arguments):
    with pytest.raises(UserError, match="k >= 1 and least > 0"):
        NearestNeighbourEntropy(**arguments)
