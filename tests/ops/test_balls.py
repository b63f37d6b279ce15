"""Balls to the k-th neighbour and what they hold: equal to brute force, not near it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from genbench.data.sources import Digits
from genbench.errors import UserError
from genbench.metrics.extractors import Shipped
from genbench.ops import balls
from genbench.ops.balls import held, held_by_each_other, radii


def distances(a: Tensor, b: Tensor) -> Tensor:
    """[N, M] from differences in float64, rounded to the points' dtype."""
    rows = [torch.linalg.vector_norm(row.double() - b.double(), dim=1) for row in a]
    return torch.stack(rows).to(a.dtype)


def kth(x: Tensor, k: int) -> Tensor:
    others = distances(x, x).fill_diagonal_(torch.inf)
    return others.sort(dim=1).values[:, k - 1]


def clusters(count: int = 90, dimension: int = 16) -> Tensor:
    """Tight clusters far apart and far from the origin: float32 products see nothing of their insides."""
    torch.manual_seed(0)
    centres = 1000 + 100 * torch.randn(3, dimension)
    return centres.repeat_interleave(count // 3, dim=0) + 1e-3 * torch.randn(count, dimension)


def lattice() -> Tensor:
    """Points of a small lattice, many times over: ties everywhere, distances of zero too."""
    torch.manual_seed(1)
    return torch.randint(0, 3, (70, 3)).float()


SETS = {
    "normal": lambda: torch.randn(101, 24, generator=torch.Generator().manual_seed(2)),
    "clusters": clusters,
    "lattice": lattice,
    "all the same": lambda: torch.full((40, 5), 0.1),
    "double": lambda: clusters().double(),
    "few": lambda: torch.tensor([[0.0], [1.0], [3.0], [7.0]]),
}


@pytest.mark.parametrize("tile", [7, 1024])
@pytest.mark.parametrize("k", [1, 3])
@pytest.mark.parametrize("name", SETS)
def test_radii_and_what_balls_hold_are_exact(name, k, tile):
    """Bit for bit, of points inside balls' own set (whose k-th neighbours are on surfaces) and others."""
    x = SETS[name]()
    reach = radii(x, k, tile)
    assert torch.equal(reach, kth(x, k))
    torch.manual_seed(3)
    others = x[torch.randint(len(x), (37,))] + 0.3 * torch.randn(37, x.shape[1], dtype=x.dtype)
    for points in (x, others):
        inside = distances(points, x) <= reach
        found = held(points, x, reach, tile)
        assert torch.equal(found.balls, inside.sum(dim=1))
        assert torch.equal(found.points, inside.sum(dim=0))


def test_every_ball_holds_its_centre_and_its_k_nearest():
    """Among points in general position, exactly k + 1 of its own set."""
    x = SETS["normal"]()
    for k in (1, 4):
        assert (held(x, x, radii(x, k)).points == k + 1).all()


def real(name: str) -> Tensor:
    """Real images: digits as pixels, 64 dimensions, and as features of the shipped extractor."""
    images = Digits().load(Path(), "train").images[:600]
    return images.flatten(1).float() if name == "pixels" else Shipped("digits")(images)["pool"]


@pytest.mark.parametrize("name", ["pixels", "features"])
def test_products_err_by_less_than_promised_and_few_pairs_are_looked_at_twice(name, monkeypatch):
    """The bound is for the worst case: found are less than a tenth of it, and less than 1 % of the pairs."""
    x = real(name)
    centred = x - x.mean(dim=0)
    squares = balls._Squares().pairwise(centred, centred).double()
    norms = centred.double().square().sum(dim=1)
    error = (squares - (x.double()[:, None] - x.double()).square().sum(dim=2)).abs()
    assert (error <= 0.1 * balls._share(x) * (norms[:, None] + norms)).all()

    reach = radii(x, 3)
    assert torch.equal(reach, kth(x, 3))
    looked: list[int] = []
    again = balls._apart
    monkeypatch.setattr(balls, "_apart", lambda a, i, b, j: looked.append(len(i)) or again(a, i, b, j))
    inside = distances(x, x) <= reach
    assert torch.equal(held(x, x, reach).balls, inside.sum(dim=1))
    assert len(x) <= sum(looked) < 0.01 * len(x) ** 2


@pytest.mark.parametrize("tile", [7, 1024])
@pytest.mark.parametrize("name", SETS)
def test_both_ways_at_once_is_each_way_alone(name, tile):
    x = SETS[name]()
    torch.manual_seed(4)
    y = x[torch.randint(len(x), (23,))] + 0.3 * torch.randn(23, x.shape[1], dtype=x.dtype)
    of_x, of_y = radii(x, 2), radii(y, 2)
    found = held_by_each_other(x, of_x, y, of_y, tile)
    for both, alone in zip(found, (held(x, y, of_y), held(y, x, of_x)), strict=True):
        assert torch.equal(both.balls, alone.balls)
        assert torch.equal(both.points, alone.points)


def test_no_product_of_matrices_is_computed_twice(monkeypatch):
    """Within a set of two tiles three, one of them for both of its halves; between two sets each once."""
    x, y = torch.randn(2, 20, 4)
    seen: list[tuple[int, int]] = []
    plain = balls._Squares.pairwise
    monkeypatch.setattr(
        balls._Squares, "pairwise", lambda self, a, b: seen.append((len(a), len(b))) or plain(self, a, b)
    )
    reach = radii(x, 1, tile=15)
    assert seen[:3] == [(15, 15), (15, 5), (5, 5)]
    seen.clear()
    held_by_each_other(x, reach, y, reach, tile=15)
    assert seen == [(15, 15), (15, 5), (5, 15), (5, 5)]


def test_half_precision_is_raised_and_autocast_has_no_say():
    x = SETS["normal"]().bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        reach = radii(x, 2)
        found = held(x, x, reach)
    assert reach.dtype == torch.float32
    assert torch.equal(reach, kth(x.float(), 2))
    assert torch.equal(found.balls, (distances(x.float(), x.float()) <= reach).sum(dim=1))


@pytest.mark.parametrize("k", [0, 5])
def test_neighbours_that_are_not_there_are_refused(k):
    with pytest.raises(UserError, match=f"neighbour {k} "):
        radii(torch.randn(5, 2), k)


def test_no_points_are_held_by_no_balls():
    found = held(torch.empty(0, 3), torch.randn(4, 3), torch.ones(4))
    assert found.balls.shape == (0,)
    assert found.points.tolist() == [0, 0, 0, 0]
