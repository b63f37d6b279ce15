"""Arithmetic, traffic, memory and ceilings: numbers that can be worked out by hand."""

from __future__ import annotations

import pytest
import torch

from genbench.speed import ceilings
from genbench.speed.arithmetic import arithmetic
from genbench.speed.counting import counted
from genbench.speed.memory import peak
from genbench.speed.turns import Clock

CPU = torch.device("cpu")


def test_products_and_sums_are_counted():
    a, b = torch.ones(4, 5), torch.ones(5, 6)
    assert counted(lambda: a @ b) == {"flops": 2 * 4 * 5 * 6 + 24, "bytes": 4 * (20 + 30 + 24)}
    assert counted(lambda: a + a) == {"flops": 20, "bytes": 4 * 60}
    assert counted(lambda: a.add_(1)) == {"flops": 20, "bytes": 4 * 40}


def test_views_and_what_is_merely_allocated_are_free():
    a = torch.ones(4, 6)
    assert counted(lambda: a.t()[1:].unflatten(0, (5, 1)).expand(5, 2, 4)) == {"flops": 0, "bytes": 0}
    assert counted(lambda: torch.empty(100)) == {"flops": 0, "bytes": 0}
    assert counted(lambda: torch.randn(100))["bytes"] == 400


def test_a_convolution_is_its_multiplications_and_additions():
    x, weight = torch.ones(2, 3, 8, 8), torch.ones(5, 3, 3, 3)
    found = counted(lambda: torch.nn.functional.conv2d(x, weight, padding=1))
    assert found["flops"] == 2 * 2 * 5 * 64 * 27 + 2 * 5 * 64


def test_the_arithmetic_of_a_training_step_is_its_convolutions_and_products_both_ways():
    """The images need no gradient: a convolution and a linear layer need three products on the way back."""
    network = torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 3), torch.nn.SiLU(), torch.nn.Flatten(), torch.nn.Linear(16, 2)
    )
    x = torch.randn(5, 3, 4, 4)
    alone = arithmetic(lambda: network(x).square().mean().backward())
    names = ["convolution", "addmm", "mm", "mm", "convolution_backward"]
    assert [func._overloadpacket.__name__ for func, _, _ in alone._calls] == names
    gradients = [each.grad.clone() for each in network.parameters()]
    done = arithmetic(alone.again)
    assert [func for func, _, _ in done._calls] == [func for func, _, _ in alone._calls]
    assert all(torch.equal(a, b.grad) for a, b in zip(gradients, network.parameters(), strict=True))


def test_memory_is_what_is_held_at_once():
    megabytes = 256  # half of it is more than the C library ever keeps for later
    held = peak(lambda: [torch.ones(2**18 * megabytes // 2).sum() for _ in range(4)], CPU)
    if held is None:
        pytest.skip("this system does not tell what a process holds")
    # One of the four at a time, each of half the size; others may take or give back a little meanwhile.
    assert 0.9 * megabytes / 2 <= held / 2**20 < megabytes


def test_ceilings_are_what_is_moved_and_multiplied_in_the_median_time(monkeypatch):
    times = iter([[[0.5, 0.5, 2.0]], [[0.25, 0.25, 0.25], [0.125, 0.125, 9.0]]])
    monkeypatch.setattr(Clock, "turns", lambda self, contestants: next(times))
    found, rows = ceilings.measure({"copy_bytes": 4096, "product": 8}, Clock(CPU, rounds=3))
    assert found.copy == 2 * 4096 / 0.5
    assert found.product == {"fp32": 2 * 8**3 / 0.25, "bf16": 2 * 8**3 / 0.125}
    assert [row.part for row in rows] == 3 * ["ceilings"]
    assert not any(row.ratio for row in rows), "neither is a rival of the other"


def test_the_better_of_two_ceilings_counts():
    first = ceilings.Ceilings(2.0, {"fp32": 1.0, "bf16": 9.0})
    second = ceilings.Ceilings(1.0, {"fp32": 3.0, "bf16": 4.0})
    assert first.best(second) == ceilings.Ceilings(2.0, {"fp32": 3.0, "bf16": 9.0})
