"""AdaFactor, AdaX and schedules against their defining recursions and closed forms."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from torch import Tensor, nn
from torch.optim import Optimizer

from genbench.contracts import UserError
from genbench.harness.optimizers import (
    AdaFactor,
    AdaX,
    Constant,
    Cosine,
    Linear,
    Schedule,
    adafactor_memory,
    adax_forgetting,
)

CONF = Path(__file__).parents[2] / "conf"
BUILDERS = [lambda params: AdaFactor(params, lr=1e-2), lambda params: AdaX(params, lr=1e-2)]


def take_step(optimizer: Optimizer, parameter: nn.Parameter, gradient: Tensor) -> Tensor:
    """What a step with this gradient adds to the parameter."""
    before = parameter.detach().clone()
    parameter.grad = gradient.clone()
    optimizer.step()
    return parameter.detach() - before


# ------------------------------------------------------------------------------------ memory of squares


def test_memories_have_the_known_values() -> None:
    assert 1 - adax_forgetting(2, 1e-4) == pytest.approx(0.500025, abs=5e-7)
    assert 1 - adax_forgetting(1000, 1e-4) == pytest.approx(0.999049, abs=5e-7)
    assert adafactor_memory(2) == pytest.approx(0.425651, abs=5e-7)
    assert adafactor_memory(1000) == pytest.approx(0.996019, abs=5e-7)


def test_memories_start_at_nothing_and_tend_to_everything() -> None:
    assert adafactor_memory(1) == 0.0
    assert adax_forgetting(1, 1e-4) == pytest.approx(1.0, rel=1e-12)
    assert adafactor_memory(10**9) > 1 - 1e-7
    assert 0.0 <= adax_forgetting(10**9, 1e-4) < 1e-12  # (1 + beta2)^t is far beyond float64 here


def test_adax_forgetting_is_the_papers_fraction() -> None:
    for step in (1, 2, 10, 1_000, 100_000):
        assert adax_forgetting(step, 1e-4) == pytest.approx(1e-4 / (1.0001**step - 1), rel=1e-8)


# ------------------------------------------------------------------------------------------------- AdaX


def test_adax_equals_the_papers_recursion() -> None:
    torch.manual_seed(0)
    beta1, beta2, lr, epsilon = 0.9, 1e-2, 1e-2, 1e-12
    parameter = nn.Parameter(torch.randn(3, 4, dtype=torch.float64))
    optimizer = AdaX([parameter], lr=lr, betas=(beta1, beta2), epsilon=epsilon)
    theta, m, v = parameter.detach().clone(), torch.zeros(3, 4).double(), torch.zeros(3, 4).double()
    for step in range(1, 31):
        gradient = torch.randn(3, 4, dtype=torch.float64)
        m = beta1 * m + (1 - beta1) * gradient
        v = (1 + beta2) * v + beta2 * gradient**2
        theta = theta - lr * m / (v / ((1 + beta2) ** step - 1) + epsilon).sqrt()
        take_step(optimizer, parameter, gradient)
        torch.testing.assert_close(parameter.detach(), theta, rtol=1e-10, atol=1e-12)


def test_adax_first_step_is_one_minus_beta1() -> None:
    parameter = nn.Parameter(torch.zeros(3))
    change = take_step(AdaX([parameter], lr=1.0), parameter, torch.tensor([1e-3, -5.0, 40.0]))
    torch.testing.assert_close(change, 0.1 * torch.tensor([-1.0, 1.0, -1.0]), rtol=1e-5, atol=0)


def test_adax_outlives_float32() -> None:
    parameter = nn.Parameter(torch.zeros(2))
    optimizer = AdaX([parameter], lr=1e-3, betas=(0.0, 1e-4))
    take_step(optimizer, parameter, torch.tensor([2.0, 2.0]))
    optimizer.state[parameter]["step"].fill_(9_000_000)
    change = take_step(optimizer, parameter, torch.tensor([2.0, -2.0]))
    torch.testing.assert_close(change, torch.tensor([-1e-3, 1e-3]), rtol=1e-5, atol=0)


def test_adax_counts_each_parameter_by_itself() -> None:
    early, late = nn.Parameter(torch.zeros(2)), nn.Parameter(torch.zeros(2))
    optimizer = AdaX([early, late], lr=1.0)
    take_step(optimizer, early, torch.ones(2))
    late.grad = torch.full((2,), 3.0)
    optimizer.step()
    torch.testing.assert_close(late.detach(), torch.full((2,), -0.1), rtol=1e-5, atol=0)


# -------------------------------------------------------------------------------------------- AdaFactor


def test_adafactor_first_step_of_a_vector_is_its_size() -> None:
    parameter = nn.Parameter(torch.tensor([3.0, 4.0, 0.0]))
    size = 5 / math.sqrt(3)
    change = take_step(AdaFactor([parameter], lr=0.01), parameter, torch.tensor([1e-4, -7.0, 30.0]))
    torch.testing.assert_close(change, 0.01 * size * torch.tensor([-1.0, 1.0, -1.0]), rtol=1e-5, atol=0)


def test_adafactor_never_takes_a_parameter_for_less_than_its_floor() -> None:
    parameter = nn.Parameter(torch.zeros(2))
    change = take_step(AdaFactor([parameter], lr=0.1, floor=1e-2), parameter, torch.tensor([1.0, -2.0]))
    torch.testing.assert_close(change, torch.tensor([-1e-3, 1e-3]), rtol=1e-5, atol=0)


@pytest.mark.parametrize("shape", [(4, 6), (4, 3, 3, 3)])
def test_adafactor_is_exact_where_squares_have_rank_one(shape: tuple[int, ...]) -> None:
    torch.manual_seed(1)
    columns = math.prod(shape[1:])
    parameter = nn.Parameter(torch.ones(shape))
    rank_one = torch.outer(torch.rand(shape[0]) + 0.1, torch.rand(columns) + 0.1).view(shape)
    gradient = rank_one * torch.randn(shape).sign()
    change = take_step(AdaFactor([parameter], lr=0.01), parameter, gradient)
    torch.testing.assert_close(change, -0.01 * gradient.sign(), rtol=1e-4, atol=0)


def test_adafactor_keeps_row_and_column_sums_of_the_running_mean() -> None:
    torch.manual_seed(2)
    parameter = nn.Parameter(torch.randn(5, 7, dtype=torch.float64))
    optimizer = AdaFactor([parameter], lr=1e-3, clip=1e9)
    mean = torch.zeros(5, 7, dtype=torch.float64)
    for step in range(1, 6):
        gradient = torch.randn(5, 7, dtype=torch.float64)
        mean = mean.lerp(gradient**2, 1 - adafactor_memory(step))
        size = parameter.detach().square().mean().sqrt()
        update = -take_step(optimizer, parameter, gradient) / (1e-3 * size)
        implied = (gradient / update) ** 2  # what the step divided by
        torch.testing.assert_close(implied.sum(0), mean.sum(0), rtol=1e-8, atol=0)
        torch.testing.assert_close(implied.sum(1), mean.sum(1), rtol=1e-8, atol=0)


def test_adafactor_stores_rows_and_columns_of_matrices_only() -> None:
    matrix, vector = nn.Parameter(torch.ones(8, 3, 3, 3)), nn.Parameter(torch.ones(8))
    optimizer = AdaFactor([matrix, vector])
    matrix.grad, vector.grad = torch.ones_like(matrix), torch.ones_like(vector)
    optimizer.step()
    assert {name: tuple(t.shape) for name, t in optimizer.state[matrix].items()} == {
        "step": (),
        "rows": (8,),
        "columns": (27,),
    }
    assert tuple(optimizer.state[vector]["squared"].shape) == (8,)


def test_adafactor_bounds_the_root_mean_square_of_a_step() -> None:
    parameter = nn.Parameter(torch.ones(100))
    optimizer = AdaFactor([parameter], lr=1e-2)
    for _ in range(200):
        take_step(optimizer, parameter, torch.full((100,), 1e-3))
    size = float(parameter.detach().square().mean().sqrt())
    change = take_step(optimizer, parameter, torch.full((100,), 1e3))  # a gradient out of all proportion
    assert float(change.square().mean().sqrt()) == pytest.approx(1e-2 * size, rel=1e-4)


def test_adafactor_takes_gradients_of_zero_and_of_tiny_rows() -> None:
    parameter = nn.Parameter(torch.ones(3, 4))
    optimizer = AdaFactor([parameter], lr=1e-2)
    assert torch.equal(take_step(optimizer, parameter, torch.zeros(3, 4)), torch.zeros(3, 4))
    gradient = torch.tensor([[1e-15], [1.0], [1.0]]) * torch.tensor([1e-15, 1.0, 1.0, 1.0])
    assert take_step(optimizer, parameter, gradient).isfinite().all()


# ------------------------------------------------------------------------------------------------- both


@pytest.mark.parametrize("build", BUILDERS)
def test_a_quadratic_is_minimised(build: Callable[[list[nn.Parameter]], Optimizer]) -> None:
    torch.manual_seed(3)
    parameter, target = nn.Parameter(torch.ones(6, 5)), torch.linspace(-2, 2, 30).view(6, 5)
    optimizer = build([parameter])
    for step in range(2_000):
        for group in optimizer.param_groups:
            group["lr"] = 1e-2 * (1 - step / 2_000)
        optimizer.zero_grad()
        (parameter - target).square().sum().backward()
        optimizer.step()
    torch.testing.assert_close(parameter.detach(), target, rtol=0, atol=1e-2)


@pytest.mark.parametrize("build", BUILDERS)
def test_resuming_from_a_state_dict_is_bit_for_bit(build: Callable[[list[nn.Parameter]], Optimizer]) -> None:
    def train(module: nn.Module, optimizer: Optimizer, steps: range) -> None:
        for step in steps:
            torch.manual_seed(step)
            optimizer.zero_grad(set_to_none=True)
            module(torch.randn(8, 4)).square().mean().backward()
            optimizer.step()

    torch.manual_seed(4)
    module = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3))
    optimizer = build(list(module.parameters()))
    train(module, optimizer, range(5))
    weights, state = copy.deepcopy(module.state_dict()), copy.deepcopy(optimizer.state_dict())
    train(module, optimizer, range(5, 10))

    resumed = copy.deepcopy(module)
    resumed.load_state_dict(weights)
    resumed_optimizer = build(list(resumed.parameters()))
    resumed_optimizer.load_state_dict(state)
    train(resumed, resumed_optimizer, range(5, 10))
    for mine, theirs in zip(resumed.parameters(), module.parameters(), strict=True):
        assert torch.equal(mine, theirs)
    assert all(isinstance(value, Tensor) for each in state["state"].values() for value in each.values())


@pytest.mark.parametrize("build", BUILDERS)
def test_parameters_without_gradient_stay_and_the_closure_is_called(
    build: Callable[[list[nn.Parameter]], Optimizer],
) -> None:
    used, unused = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2))
    optimizer = build([used, unused])

    def closure() -> float:
        loss = used.square().sum()
        loss.backward()
        return float(loss.detach())

    assert optimizer.step(closure) == 2.0
    assert torch.equal(unused.detach(), torch.ones(2))
    assert not torch.equal(used.detach(), torch.ones(2))


def test_impossible_settings_are_refused() -> None:
    parameter = nn.Parameter(torch.ones(1))
    with pytest.raises(UserError, match="lr"):
        AdaFactor([parameter], lr=0.0)
    with pytest.raises(UserError, match="betas"):
        AdaX([parameter], betas=(1.0, 1e-4))


# -------------------------------------------------------------------------------------------- schedules


def test_constant_with_warm_up_rises_linearly_and_stays() -> None:
    schedule = Constant(warmup=4)
    assert [schedule(step) for step in range(6)] == [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]
    assert Constant()(0) == 1.0


def test_linear_goes_from_one_to_zero() -> None:
    schedule = Linear(total=10)
    assert [schedule(step) for step in (0, 5, 10, 11)] == [1.0, 0.5, 0.0, 0.0]


def test_cosine_goes_from_one_to_final() -> None:
    schedule = Cosine(total=100, final=0.1)
    assert schedule(0) == 1.0
    assert schedule(50) == pytest.approx(0.55)
    assert schedule(25) == pytest.approx(0.1 + 0.9 * 0.5 * (1 + math.sqrt(0.5)))
    assert schedule(100) == schedule(1_000) == pytest.approx(0.1)


@pytest.mark.parametrize("schedule", [Linear(total=20, warmup=5), Cosine(total=20, warmup=5)])
def test_warm_up_multiplies_the_decay(schedule: Schedule) -> None:
    for step in range(25):
        assert schedule(step) == pytest.approx(schedule.decay(step) * min(1, (step + 1) / 5))


def test_schedules_say_whether_the_total_matters() -> None:
    assert not Constant.depends_on_total
    assert Linear(total=10).depends_on_total
    assert Cosine(total=10).depends_on_total


# ---------------------------------------------------------------------------------------- configurations


@pytest.mark.parametrize(
    ("name", "kind"),
    [("adam", torch.optim.Adam), ("adamw", torch.optim.AdamW), ("adafactor", AdaFactor), ("adax", AdaX)],
)
def test_configurations_build_optimisers_that_take_a_step(name: str, kind: type[Optimizer]) -> None:
    config = OmegaConf.create({"optim": OmegaConf.load(CONF / "optim" / f"{name}.yaml")})
    config.optim.lr = 0.0125
    config.optim.warmup = 50
    parameter = nn.Parameter(torch.ones(3, 2))
    optimizer = instantiate(config.optim.optimizer)([parameter])
    assert type(optimizer) is kind
    assert optimizer.param_groups[0]["lr"] == 0.0125
    take_step(optimizer, parameter, torch.ones(3, 2))
    assert (parameter < 1).all()
    assert instantiate(config.optim.decay) == Constant(warmup=50)
