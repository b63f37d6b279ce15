"""Generators trained against critics."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from genbench.contracts import Batch, ClassConditional, Decodes, Renormalises, Step, Together
from genbench.divergences.divergence import Divergence
from genbench.divergences.heads import LogRatio
from genbench.divergences.table import KL, JensenShannon
from genbench.generators.adversarial import Adversarial
from genbench.generators.objectives import Saddle, Trick, Variational
from genbench.generators.regularisers import FakeGradient, RealGradient, Spectral
from genbench.generators.updates import Alternating, Simultaneous
from genbench.harness.assembly import Assembly, settle_precision
from genbench.harness.distributed import Ranks
from genbench.harness.optimizers import Constant
from genbench.harness.phases import Computation, Plan, Recipe
from genbench.networks.critic import Critic, Projection

CPU = torch.device("cpu")


class Shift(nn.Module):
    """x = z + shift, over 1x1x1 images."""

    def __init__(self, shift: float) -> None:
        super().__init__()
        self.shift = nn.Parameter(torch.tensor(shift))

    def forward(self, latents: Tensor, labels: Tensor | None = None) -> Tensor:
        return (latents + self.shift).reshape(-1, 1, 1, 1)


class Straight(Critic):
    """v(x) = a x + b: the form of the log-ratio of two Gaussians of equal width."""

    def __init__(self) -> None:
        super().__init__()
        self.head = Projection(1)

    def features(self, images: Tensor) -> Tensor:
        return images.flatten(1)


def toy(updates, loss=None, row=KL, **kwargs) -> Adversarial:
    torch.manual_seed(0)
    objective = Variational(row(), LogRatio(), loss or Saddle())
    return Adversarial(Shift(1.0), Straight(), objective, updates, (1, 1, 1), 1, **kwargs)


def batch(count: int, labels: Tensor | None = None) -> Batch:
    return Batch(torch.randn(count, 1, 1, 1), labels, torch.arange(count))


def test_it_offers_what_one_step_samplers_need():
    model = toy(Alternating())
    assert isinstance(model, Decodes)
    assert isinstance(model, Renormalises)
    assert isinstance(model, ClassConditional)


@pytest.mark.parametrize("loss", [Saddle(), Trick()])
@pytest.mark.parametrize("updates", [Simultaneous(), Alternating(2)])
def test_a_shifted_gaussian_is_pulled_onto_the_data(updates, loss):
    """Data N(0, 1), generator z + shift from shift = 1, a critic that can be exact; damped by R1 and R2."""
    penalties = {"r1": RealGradient(0.5), "r2": FakeGradient(0.5)}
    model = toy(updates, loss, JensenShannon, regularisers=penalties)
    recipe = Recipe(torch.optim.SGD, lr=0.1, schedule=Constant(), clip=None)
    plan = Plan(model, lambda name: recipe, Computation(CPU, None, 1, 0, Ranks()))
    for index in range(300):
        plan.run(Step(index, 300), iter([batch(256) for _ in range(plan.batches_per_step)]))
    assert abs(model.generator.shift.item()) < 0.2


def test_the_critic_trained_alone_finds_the_divergence():
    """KL between N(0, 1) and N(1, 1) is a half; the logged bound says so."""
    model = toy(Alternating())
    optimizer = torch.optim.Adam(model.critic.parameters(), 0.02)
    for index in range(400):
        optimizer.zero_grad()
        model.critic_loss(batch(1024), Step(index, 400)).total.backward()
        optimizer.step()
    assert model.critic.head.linear.weight.item() < 0  # larger where real images are: at 0, not at 1
    bounds = [float(model.critic_loss(batch(50_000), Step(0, 1)).parts["bound"]) for _ in range(4)]
    assert abs(sum(bounds) / 4 - 0.5) < 0.03


def test_updates_arrange_the_phases():
    together = toy(Simultaneous()).phases()
    assert [type(entry) for entry in together] == [Together]
    assert [phase.name for phase in together[0].phases] == ["critic", "generator"]
    critic, generator = toy(Alternating(5)).phases()
    assert (critic.name, critic.repeats, generator.name, generator.repeats) == ("critic", 5, "generator", 1)


def test_penalties_are_added_to_the_critics_loss_and_logged():
    plain = toy(Alternating())
    punished = toy(Alternating(), regularisers={"spectral": Spectral(), "r1": RealGradient(2.0)})
    torch.manual_seed(0)
    losses = punished.critic_loss(batch(8), Step(0, 1))
    assert set(losses.parts) == {"bound", "r1"}
    torch.testing.assert_close(losses.total, losses.parts["r1"] - losses.parts["bound"])
    assert set(plain.critic_loss(batch(8), Step(0, 1)).parts) == {"bound"}


def test_the_critics_loss_has_no_gradient_in_the_generator():
    model = toy(Alternating())
    model.critic_loss(batch(8), Step(0, 1)).total.backward()
    assert model.generator.shift.grad is None


def assembly(compose, *overrides: str) -> Assembly:
    return Assembly(settle_precision(compose("model=fgan", *overrides), CPU), CPU, Ranks())


def small(*more: str) -> list[str]:
    return [
        "backbone.generator.widths=[16,8]",
        "backbone.critic.widths=[8,16]",
        "trainer.batch_size=16",
        *more,
    ]


def step_of(built: Assembly) -> tuple[Adversarial, dict[str, Tensor]]:
    model = built.generator()
    plan = built.plan(model)
    batches = built.batches()
    logged = plan.run(Step(0, 10), iter([batches(n) for n in range(plan.batches_per_step)]))
    return model, logged


@pytest.mark.parametrize(
    "choice",
    [
        "divergence=tv",
        "head=log_ratio",
        "generator_loss=saddle",
        "updates=simultaneous",
        "objective=hinge",
        "objective=non_saturating",
        "objective=linear",
        "objective=least_squares",
        "regulariser=none",
        "regulariser=[spectral,r1,r2]",
        "regulariser=gradient_penalty",
        "regulariser=rademacher",
        "conditional=true",
    ],
)
def test_every_choice_takes_a_step(compose, choice):
    model, logged = step_of(assembly(compose, *small(choice)))
    assert all(torch.isfinite(value) for value in logged.values())
    assert {"critic/loss", "generator/loss"} <= set(logged)
    labels = torch.arange(4) if model.classes else None
    assert model.eval().decode([torch.randn(4, 32)], labels).shape == (4, 1, 8, 8)


@pytest.mark.parametrize("backbone", ["dcgan", "sngan"])
def test_labels_reach_both_networks(compose, backbone):
    sizes = {
        "dcgan": small(),
        "sngan": [
            "backbone.generator.widths=[8,8]",
            "backbone.generator.double=[true,true]",
            "backbone.critic.widths=[8,8]",
            "backbone.critic.halve=[true,true]",
        ],
    }
    built = assembly(compose, "conditional=true", f"backbone={backbone}", *sizes[backbone])
    model = built.generator().eval()
    for parameter in model.generator.parameters():  # conditional normalisation starts as no condition at all
        nn.init.normal_(parameter, std=0.3)
    latents, images = torch.randn(1, 32).expand(2, -1), torch.randn(1, 1, 8, 8).expand(2, -1, -1, -1)
    first, second = model.decode([latents], torch.tensor([0, 7]))
    assert not torch.allclose(first, second, atol=1e-3)
    one, other = model.critic(images, torch.tensor([0, 7]))
    assert one.item() != other.item()


def test_total_variation_brings_its_penalty_and_others_do_not(compose):
    names = lambda row: set(compose("model=fgan", f"divergence={row}")["model"]["regularisers"])
    assert names("tv") == {"spectral", "r1"}
    assert names("js") == {"spectral"}
    assert set(compose("model=fgan", "divergence=tv", "regulariser=spectral")["model"]["regularisers"]) == {
        "spectral"
    }


class Triangular(Divergence):
    """f(u) = (u - 1)^2 / (u + 1), known by f and its slope alone."""

    name = "triangular"

    def f(self, u: Tensor) -> Tensor:
        return (u - 1).square() / (u + 1)

    def slope(self, u: Tensor) -> Tensor:
        return (u - 1) * (u + 3) / (u + 1).square()


def test_a_divergence_of_ones_own_trains_on_digits(compose):
    """One class with f and f': through the log-ratio head the generator learns the pixels' brightness."""
    name = f"{Triangular.__module__}.{Triangular.__name__}"
    built = assembly(
        compose,
        f"divergence._target_={name}",
        "head=log_ratio",
        *small("trainer.batch_size=64", "optim.lr=2e-3"),
    )
    model = built.generator()
    assert model.objective.divergence.name == "triangular"
    plan, batches = built.plan(model), built.batches()
    mean = built.images("train").images.float().mean(0) / 127.5 - 1
    distance = lambda: float((model.decode([torch.randn(500, 32)]).mean(0) - mean).square().mean().detach())
    before = distance()
    for step in range(150):
        plan.run(Step(step, 150), iter([batches(2 * step), batches(2 * step + 1)]))
    assert distance() < before / 4
