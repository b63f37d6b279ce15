"""Phases, simultaneous steps, accumulation and the non-finite stop, on models small enough to do by hand."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import nn

from genbench.contracts import Batch, Generator, Losses, Phase, Step, Together, UserError
from genbench.harness.distributed import Ranks
from genbench.harness.finite import NotFinite
from genbench.harness.optimizers import Constant
from genbench.harness.phases import Computation, Plan, Recipe

LR = 0.1


def recipe(phase: str) -> Recipe:
    return Recipe(partial(torch.optim.SGD), LR, Constant(), clip=None)


def computation(accumulate: int = 1) -> Computation:
    return Computation(torch.device("cpu"), None, accumulate, seed=0, ranks=Ranks())


def batches(value: float = 1.0, size: int = 4):
    while True:
        yield Batch(torch.full((size, 1, 1, 1), value), None, torch.arange(size))


class Scalar(nn.Module):
    def __init__(self, value: float) -> None:
        super().__init__()
        self.value = nn.Parameter(torch.tensor(value))


class Game(Generator):
    """min_g max_d of d g: simultaneous gradient steps spiral outwards, alternating ones stay bounded."""

    image_shape = (1, 1, 1)

    def __init__(self, together: bool, repeats: int = 1) -> None:
        super().__init__()
        self.g, self.d = Scalar(1.0), Scalar(1.0)
        self.together, self.repeats, self.seen = together, repeats, []

    def product(self) -> torch.Tensor:
        return self.g.value * self.d.value

    def phases(self):
        critic = Phase("critic", self.d, lambda b, s: self._loss(b, -1), self.repeats)
        generator = Phase("generator", self.g, lambda b, s: self._loss(b, +1))
        return [Together([critic, generator])] if self.together else [critic, generator]

    def _loss(self, batch: Batch, sign: int) -> Losses:
        self.seen.append(float(batch.images.mean()))
        return Losses(sign * self.product(), {"product": self.product()})


def test_together_takes_both_gradients_at_the_same_weights():
    game = Game(together=True)
    Plan(game, recipe, computation()).run(Step(0, 1), batches())
    assert game.d.value.item() == pytest.approx(1 + LR)
    assert game.g.value.item() == pytest.approx(1 - LR)


def test_phases_in_turn_see_each_others_steps():
    game = Game(together=False)
    Plan(game, recipe, computation()).run(Step(0, 1), batches())
    assert game.d.value.item() == pytest.approx(1 + LR)
    assert game.g.value.item() == pytest.approx(1 - LR * (1 + LR))


def test_together_shares_one_batch_and_repeats_take_fresh_ones():
    def counted():
        for number in range(100):
            yield Batch(torch.full((1, 1, 1, 1), float(number)), None, torch.arange(1))

    game = Game(together=True)
    plan = Plan(game, recipe, computation())
    plan.run(Step(0, 1), counted())
    assert game.seen == [0.0, 0.0]
    assert plan.batches_per_step == 1
    game = Game(together=False, repeats=5)
    plan = Plan(game, recipe, computation())
    plan.run(Step(0, 1), counted())
    assert game.seen == [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]
    assert plan.batches_per_step == 6


def test_a_phase_leaves_no_gradient_outside_its_parameters():
    game = Game(together=False)
    plan = Plan(game, recipe, computation())
    plan._activate(plan.optimisations["critic"])
    plan.optimisations["critic"].gradients(next(batches()), Step(0, 1))
    assert game.g.value.grad is None
    assert game.d.value.grad.item() == -1


def test_parts_are_logged_under_the_phases_name():
    logged = Plan(Game(together=False), recipe, computation()).run(Step(0, 1), batches())
    names = ("loss", "product", "gradient_norm")
    assert set(logged) == {f"{phase}/{name}" for phase in ("critic", "generator") for name in names}


class Regression(Generator):
    image_shape = (1, 1, 1)

    def __init__(self) -> None:
        super().__init__()
        self.network = nn.Linear(3, 1)

    def phases(self):
        return [Phase("fit", self.network, self._loss)]

    def _loss(self, batch: Batch, step: Step) -> Losses:
        return Losses((self.network(batch.images.flatten(1)) - 1).square().mean())


def test_accumulation_gives_the_gradient_of_the_whole_batch():
    torch.manual_seed(0)
    model = Regression().double()
    batch = Batch(torch.randn(8, 3, 1, 1, dtype=torch.float64), torch.arange(8), torch.arange(8))
    gradients = []
    for pieces in (1, 2, 8):
        optimisation = Plan(model, recipe, computation(pieces)).optimisations["fit"]
        logged = optimisation.gradients(batch, Step(0, 1))
        gradients.append((model.network.weight.grad.clone(), float(logged["fit/loss"])))
    for gradient, loss in gradients[1:]:
        assert torch.allclose(gradient, gradients[0][0], atol=1e-14)
        assert loss == pytest.approx(gradients[0][1], abs=1e-6)


def test_a_batch_that_does_not_divide_is_refused():
    optimisation = Plan(Regression(), recipe, computation(3)).optimisations["fit"]
    with pytest.raises(UserError, match="accumulate"):
        optimisation.gradients(Batch(torch.zeros(8, 3, 1, 1), None, torch.arange(8)), Step(0, 1))


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_stops_before_the_step(bad):
    class Breaks(Regression):
        def _loss(self, batch, step):
            loss = super()._loss(batch, step).total
            return Losses(loss * bad if step.index == 3 else loss)

    model = Breaks()
    plan = Plan(model, recipe, computation())
    data = batches(size=2)
    images = (Batch(b.images.expand(2, 3, 1, 1), None, b.index) for b in data)
    for step in range(3):
        plan.run(Step(step, 10), images)
    before = [p.detach().clone() for p in model.parameters()]
    with pytest.raises(NotFinite, match=r"'fit' is not finite at step 3"):
        plan.run(Step(3, 10), images)
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))


@pytest.mark.parametrize("clip", [None, 1.0])
def test_a_gradient_that_is_not_finite_stops_before_the_step(clip):
    class Breaks(Regression):
        def _loss(self, batch, step):
            # sqrt has an infinite slope at zero: the loss is finite, its gradient is not.
            return Losses((self.network.weight * 0).abs().sum().sqrt())

    model = Breaks()
    clipped = lambda phase: Recipe(partial(torch.optim.SGD), LR, Constant(), clip=clip)
    before = model.network.weight.detach().clone()
    with pytest.raises(NotFinite, match="gradient norm"):
        Plan(model, clipped, computation()).run(Step(0, 1), batches())
    assert torch.equal(before, model.network.weight)


def test_gradients_are_clipped_to_the_stated_norm():
    model = Regression()
    clipped = lambda phase: Recipe(partial(torch.optim.SGD), 1.0, Constant(), clip=1e-3)
    before = torch.cat([p.detach().flatten().clone() for p in model.parameters()])
    images = (Batch(b.images.expand(4, 3, 1, 1) * 100, None, b.index) for b in batches())
    Plan(model, clipped, computation()).run(Step(0, 1), images)
    after = torch.cat([p.detach().flatten() for p in model.parameters()])
    assert float((after - before).norm()) == pytest.approx(1e-3, rel=1e-3)


def test_the_learning_rate_follows_the_schedule():
    class Halves(Constant):
        def __call__(self, step):
            return 0.5**step

    model = Game(together=False)
    halving = lambda phase: Recipe(partial(torch.optim.SGD), LR, Halves(), None)
    plan = Plan(model, halving, computation())
    for step in range(3):
        plan.run(Step(step, 3), batches())
    assert plan.optimisations["critic"].optimizer.param_groups[0]["lr"] == LR / 4


def test_randomness_in_a_loss_is_a_function_of_seed_step_and_phase():
    class Noisy(Game):
        def _loss(self, batch, sign):
            self.seen.append(float(torch.rand(())))
            return Losses(sign * self.product())

    runs = []
    for disturbance in (1, 2):
        game = Noisy(together=False)
        plan = Plan(game, recipe, computation())
        for step in range(2):
            torch.manual_seed(disturbance)
            plan.run(Step(step, 2), batches())
        runs.append(game.seen)
    assert runs[0] == runs[1]
    assert len(set(runs[0])) == 4


def test_phases_of_one_name_are_refused():
    class Twice(Game):
        def phases(self):
            return [Phase("same", self.g, None), Phase("same", self.d, None)]

    with pytest.raises(UserError, match="same name"):
        Plan(Twice(False), recipe, computation())
