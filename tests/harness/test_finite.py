"""The first thing that was not finite: told at once, or when somebody looks."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from genbench.contracts import Step
from genbench.harness.distributed import Ranks
from genbench.harness.finite import Finite, NotFinite

CPU = torch.device("cpu")
NAN, INF = torch.tensor(float("nan")), torch.tensor(float("inf"))


def test_on_a_cpu_it_is_told_at_once():
    finite = Finite(CPU, Ranks())
    finite.note(torch.tensor(1.0), "loss", Step(0, 9))
    with pytest.raises(NotFinite, match=r"^The loss is not finite at step 1 \(nan on rank 0\)\.$"):
        finite.note(NAN, "loss", Step(1, 9))


def test_later_it_is_the_first_that_is_told():
    finite = Finite(CPU, Ranks(), later=True)
    for name, value, step in (("loss", 1.0, 2), ("norm", INF, 3), ("loss", NAN, 3), ("norm", 1.0, 4)):
        finite.note(torch.as_tensor(value), name, Step(step, 9))
    with pytest.raises(NotFinite, match=r"^The norm is not finite at step 3 \(inf on rank 0\)\.$"):
        finite.look()


def test_looking_at_what_is_finite_is_silent():
    finite = Finite(CPU, Ranks(), later=True)
    finite.note(torch.tensor(3.4e38, dtype=torch.float64) * 10, "loss", Step(0, 1))
    finite.look()


@pytest.mark.parametrize("optimizer", [torch.optim.Adam, torch.optim.AdamW])
def test_fused_optimizers_stand_still_from_then_on(optimizer):
    finite = Finite(CPU, Ranks(), later=True)
    weight = nn.Parameter(torch.ones(3))
    adam = optimizer([weight], lr=0.1, fused=True)

    def step(gradient: float) -> None:
        weight.grad = torch.full((3,), gradient)
        finite.note(weight.grad.norm(), "gradient norm", Step(0, 9))
        finite.guard(adam)
        adam.step()

    step(1.0)
    before = [weight.detach().clone(), *(value.clone() for value in adam.state[weight].values())]
    assert not torch.equal(before[0], torch.ones(3))
    step(float("inf"))
    step(1.0)
    assert all(torch.equal(a, b) for a, b in zip(before, [weight, *adam.state[weight].values()], strict=True))


def test_optimizers_that_know_no_flag_are_stopped_before_their_step():
    finite = Finite(CPU, Ranks(), later=True)
    finite.note(NAN, "loss", Step(0, 9))
    with pytest.raises(NotFinite):
        finite.guard(torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=0.1))
