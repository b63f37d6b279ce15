"""Averages of weights: the decay rules' known values, and that the average is the average."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from genbench.contracts import UserError
from genbench.harness.ema import Average, DecayRule, FixedDecay, HalfLife, WarmedUp


class Scalar(nn.Module):
    """One float64 weight, so that closed forms can be compared to rounding."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(value, dtype=torch.float64))


def set_all(module: nn.Module, value: float) -> None:
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.fill_(value)


def test_warm_up_reaches_its_limits_at_the_published_steps() -> None:
    assert WarmedUp(0.999).decay(8_989, 0, 1) < 0.999 == WarmedUp(0.999).decay(8_990, 0, 1)
    assert WarmedUp(0.9999).decay(89_989, 0, 1) < 0.9999 == WarmedUp(0.9999).decay(89_990, 0, 1)
    assert WarmedUp(0.9999).decay(0, 0, 1) == 0.1


def test_half_life_is_edm_once_ramped() -> None:
    rule = HalfLife(images=500_000, ramp=0.05)
    assert rule.decay(0, 20_000_000, 512) == pytest.approx(0.99929047, abs=5e-9)
    assert rule.decay(0, 1_000_000, 512) == pytest.approx(0.5 ** (512 / 50_000), rel=1e-12)
    assert rule.decay(0, 10_000_000, 512) == rule.decay(0, 40_000_000, 512)
    assert rule.decay(0, 0, 512) == 0.0  # nothing seen: the average is the weights
    assert HalfLife(500_000, ramp=None).decay(0, 0, 512) == pytest.approx(0.99929047, abs=5e-9)


@pytest.mark.parametrize("batch_size", [25, 100, 400])
def test_after_h_half_lives_the_start_has_influence_two_to_the_minus_h(batch_size: int) -> None:
    source = Scalar(1.0)
    average = Average(source, HalfLife(images=2_000, ramp=None))
    set_all(source, 0.0)
    for step in range(3 * 2_000 // batch_size):
        average.update(step, step * batch_size, batch_size)
    assert float(average.module.weight) == pytest.approx(2.0**-3, rel=1e-12)


def test_fixed_decay_is_a_geometric_mean_of_the_past() -> None:
    source = Scalar(5.0)
    average = Average(source, FixedDecay(0.9))
    weights = [1.0, -2.0, 4.0]
    for step, value in enumerate(weights):
        set_all(source, value)
        average.update(step, step, 1)
    expected = 0.9**3 * 5.0 + sum(0.1 * 0.9 ** (2 - step) * value for step, value in enumerate(weights))
    assert float(average.module.weight) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("rule", [FixedDecay(0.9999), WarmedUp(0.999), HalfLife(1_000), FixedDecay(0.3)])
def test_constant_weights_are_a_fixed_point_bit_for_bit(rule: DecayRule) -> None:
    source = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8))
    average = Average(source, rule)
    for step in range(5):
        average.update(step, 32 * step, 32)
    for mine, theirs in zip(average.module.parameters(), source.parameters(), strict=True):
        assert torch.equal(mine, theirs)


def test_buffers_are_copied_and_weights_averaged() -> None:
    source = nn.BatchNorm1d(4)
    average = Average(source, FixedDecay(0.5))
    source(torch.randn(16, 4) + 3.0)
    set_all(source, 2.0)
    average.update(0, 0, 16)
    assert torch.equal(average.module.running_mean, source.running_mean)
    assert int(average.module.num_batches_tracked) == 1
    assert torch.equal(average.module.weight, torch.full((4,), 1.5))
    source.running_mean = torch.full((4,), 7.0)  # a buffer may be replaced by a new tensor
    average.update(1, 16, 16)
    assert torch.equal(average.module.running_mean, torch.full((4,), 7.0))


def test_the_average_is_apart_from_what_is_trained() -> None:
    source = nn.Sequential(nn.Linear(3, 3), nn.Dropout(0.5)).train()
    average = Average(source, FixedDecay(0.9))
    assert source.training
    assert not any(module.training for module in average.module.modules())
    assert all(parameter.requires_grad for parameter in source.parameters())
    assert not any(parameter.requires_grad for parameter in average.module.parameters())
    before = average.module[0].weight.clone()
    set_all(source, 9.0)
    assert torch.equal(average.module[0].weight, before)


def test_state_round_trip_continues_identically() -> None:
    def train(steps: range, source: nn.Module, average: Average) -> None:
        for step in steps:
            set_all(source, float(step) ** 2)
            source.running_var.fill_(step)
            average.update(step, 8 * step, 8)

    source = nn.BatchNorm1d(5)
    average = Average(source, WarmedUp(0.9))
    train(range(4), source, average)
    saved = {name: tensor.clone() for name, tensor in average.state_dict().items()}
    train(range(4, 8), source, average)

    resumed = Average(nn.BatchNorm1d(5), WarmedUp(0.9))
    resumed.load_state_dict(saved)
    train(range(4, 8), resumed.source, resumed)
    for name, tensor in average.state_dict().items():
        assert torch.equal(tensor, resumed.state_dict()[name]), name


def test_what_cannot_be_averaged_is_refused() -> None:
    with pytest.raises(UserError, match="bfloat16"):
        Average(nn.Linear(2, 2).bfloat16(), FixedDecay(0.9))
    with pytest.raises(UserError, match="found 1"):
        FixedDecay(1.5)
    with pytest.raises(UserError, match="half-life"):
        HalfLife(0)
