"""Nearest neighbours against brute force, whatever the tiles; distances and their unit balls."""

from __future__ import annotations

import math

import pytest
import torch

from genbench.errors import UserError
from genbench.ops.neighbours import Euclidean, Maximum, neighbours

DISTANCES = [Euclidean(), Maximum()]


def brute_force(x, y, distance, own):
    """Sorted distances [N, M] by differences in float64; a point's distance to itself is infinite."""
    difference = (x.double()[:, None] - y.double()[None]).abs()
    order = 2.0 if isinstance(distance, Euclidean) else math.inf
    distances = torch.linalg.vector_norm(difference, ord=order, dim=-1)
    if own:
        distances.fill_diagonal_(math.inf)
    return distances


@pytest.mark.parametrize("distance", DISTANCES, ids=lambda d: type(d).__name__)
@pytest.mark.parametrize("tile", [1, 7, 16, 1000])
@pytest.mark.parametrize("k", [1, 3, 36])
def test_neighbours_are_those_of_brute_force(distance, tile, k):
    """37 points: no tile but 1 divides them, and k = 36 is all the others."""
    torch.manual_seed(0)
    x, y = torch.randn(37, 3, dtype=torch.float64), torch.randn(50, 3, dtype=torch.float64)
    own = brute_force(x, x, distance, own=True).sort(dim=1).indices[:, :k]
    assert torch.equal(neighbours(x, x, k, distance, tile), own)
    other = brute_force(x, y, distance, own=False).sort(dim=1).indices[:, :k]
    assert torch.equal(neighbours(x, y, k, distance, tile), other)


@pytest.mark.parametrize("distance", DISTANCES, ids=lambda d: type(d).__name__)
@pytest.mark.parametrize("tile", [1, 4, 64])
def test_coinciding_points_are_neighbours_but_no_point_is_its_own(distance, tile):
    """Points of a small lattice, some many times over: all is ties, so distances are compared."""
    torch.manual_seed(1)
    x = torch.randint(0, 3, (30, 2)).float()
    expected = brute_force(x, x, distance, own=True)
    for k in (1, 5, 29):
        index = neighbours(x, x, k, distance, tile)
        assert torch.equal(expected.gather(1, index), expected.sort(dim=1).values[:, :k])
        assert not (index == torch.arange(30)[:, None]).any()
        assert all(len(set(row)) == k for row in index.tolist())


def test_an_equal_copy_is_not_the_set_itself():
    x = torch.randn(10, 2)
    assert torch.equal(neighbours(x, x.clone(), 1, Euclidean())[:, 0], torch.arange(10))


def test_neighbours_far_from_the_origin_are_not_lost_to_cancellation():
    """Gaps of 0.01 at 1,000: |a|^2 + |b|^2 - 2ab in float32 would see differences of 0.06 and more only."""
    torch.manual_seed(2)
    x = (1000 + torch.randn(300, 4) * 0.01).float()
    expected = brute_force(x, x, Euclidean(), own=True)
    found = expected.gather(1, neighbours(x, x, 1, Euclidean()))[:, 0]
    assert torch.allclose(found, expected.min(dim=1).values, rtol=1e-5, atol=0)


@pytest.mark.parametrize("distance", DISTANCES, ids=lambda d: type(d).__name__)
def test_half_precision_is_raised_to_float32(distance):
    torch.manual_seed(3)
    x = torch.randn(64, 8).bfloat16()
    expected = brute_force(x, x, distance, own=True).min(dim=1).values
    with torch.autocast("cpu", torch.bfloat16):
        index = neighbours(x, x, 1, distance)
        between = distance.between(x, x[index[:, 0]])
        pairwise = distance.pairwise(x, x)
    assert between.dtype == pairwise.dtype == torch.float32
    assert torch.allclose(between.double(), expected, rtol=1e-6, atol=0)
    assert torch.allclose(pairwise.double(), brute_force(x, x, distance, own=False), rtol=1e-6, atol=0)


@pytest.mark.parametrize("distance", DISTANCES, ids=lambda d: type(d).__name__)
def test_distances_agree_and_have_the_right_gradient(distance):
    torch.manual_seed(4)
    a = torch.randn(6, 5, dtype=torch.float64, requires_grad=True)
    b = torch.randn(6, 5, dtype=torch.float64, requires_grad=True)
    assert torch.allclose(distance.between(a, b), distance.pairwise(a, b).diagonal(), rtol=1e-12, atol=0)
    assert torch.autograd.gradcheck(distance.between, (a, b))


def test_finding_neighbours_records_no_gradient():
    """Else every tile's distances would be kept until the backward pass."""
    recorded = []

    class Watched(Euclidean):
        def pairwise(self, a, b):
            recorded.append(super().pairwise(a, b).requires_grad)
            return super().pairwise(a, b)

    x = torch.randn(8, 2, requires_grad=True)
    neighbours(x, x, 2, Watched(), tile=4)
    assert recorded == [False] * 3


@pytest.mark.parametrize(
    ("distance", "volumes"),
    [
        (Euclidean(), {1: 2, 2: math.pi, 3: 4 * math.pi / 3, 4: math.pi**2 / 2}),
        (Maximum(), {1: 2, 2: 4, 5: 32}),
    ],
    ids=["Euclidean", "Maximum"],
)
def test_unit_balls_have_their_known_volumes(distance, volumes):
    for dimension, volume in volumes.items():
        assert abs(math.exp(distance.log_unit_ball(dimension)) - volume) < 1e-12 * volume


@pytest.mark.parametrize("distance", DISTANCES, ids=lambda d: type(d).__name__)
def test_the_unit_ball_is_that_of_the_distance(distance):
    """The share of a cube of side 2 within distance 1 of its centre, in 3 dimensions, to five errors."""
    torch.manual_seed(5)
    points = 2 * torch.rand(200_000, 3, dtype=torch.float64) - 1
    share = (distance.between(points, torch.zeros(3, dtype=torch.float64)) <= 1).double().mean()
    expected = math.exp(distance.log_unit_ball(3)) / 8
    assert abs(float(share) - expected) <= 5 * (expected * (1 - expected) / 200_000) ** 0.5


@pytest.mark.parametrize("k", [0, 5])
def test_more_neighbours_than_points_are_refused(k):
    x = torch.randn(5, 2)
    with pytest.raises(UserError, match="nearest neighbours"):
        neighbours(x, x, k, Euclidean())
    assert neighbours(x, x.clone(), 5, Euclidean()).shape == (5, 5)
