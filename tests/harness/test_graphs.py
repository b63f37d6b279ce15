"""Recorded calls give what calls give, whatever comes in and however long the answer is kept."""

from __future__ import annotations

import pytest
import torch
from tape import Tape
from torch import nn

from genbench.harness.graphs import MOST, PATIENCE, CudaGraphs, Replayed


class Network(nn.Module):
    """Views, steps in place, and arguments of every kind."""

    def __init__(self) -> None:
        super().__init__()
        self.inside = nn.Conv2d(1, 4, 3, padding=1)
        self.outside = nn.Conv2d(4, 1, 3, padding=1)

    def forward(self, x, time, labels=None, scale: float = 1.0):
        hidden = self.inside(x).add_(time[:, None, None, None])
        if labels is not None:
            hidden = torch.where((labels < 0)[:, None, None, None], hidden, -hidden)
        return self.outside(torch.cat((hidden[:, 2:], hidden[:, :2].mul_(scale)), dim=1))


def inputs(count: int, seed: int, labels: bool = True) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(count, 1, 4, 4, generator=generator)
    time = torch.randn((), generator=generator).expand(count)
    return (x, time, torch.randint(-1, 3, (count,), generator=generator)) if labels else (x, time)


@pytest.fixture
def network() -> Network:
    torch.manual_seed(0)
    return Network()


def test_every_call_sees_its_own_inputs_and_keeps_its_own_output(network):
    tape = Tape()
    replayed = Replayed(network, tape)
    with torch.inference_mode():
        given = [inputs(3, seed) for seed in range(PATIENCE + 6)]
        found = [replayed(*each) for each in given]  # all of them kept
        for each, output in zip(given, found, strict=True):
            assert torch.equal(output, network(*each))
    assert (tape.recorded, tape.repeated) == (1, 6)


def test_what_differs_in_more_than_values_is_recorded_anew(network):
    tape = Tape()
    replayed = Replayed(network, tape)
    channels_last = lambda x, *more: (x.transpose(2, 3), *more)
    kinds = [
        lambda seed: (inputs(3, seed), {}),
        lambda seed: (inputs(2, seed), {}),
        lambda seed: (inputs(3, seed, labels=False), {}),
        lambda seed: (channels_last(*inputs(3, seed)), {}),
        lambda seed: (inputs(3, seed), {"scale": 2.0}),
    ]
    assert len(kinds) == MOST + 1
    with torch.inference_mode():
        for seed in range(PATIENCE + 2):
            for number, kind in enumerate(kinds):
                given, named = kind(seed)
                assert torch.equal(replayed(*given, **named), network(*given, **named))
                assert tape.recorded == min(MOST, max(0, seed - PATIENCE) * len(kinds) + number + 1) * (
                    seed >= PATIENCE
                )
    assert tape.repeated == 2 * MOST  # there is no room for one more, which is evaluated as it comes


def test_sizes_that_pass_by_leave_no_recording(network):
    tape = Tape()
    replayed = Replayed(network, tape)
    with torch.inference_mode():
        for count in range(20, 0, -1):
            for seed in range(PATIENCE):
                replayed(*inputs(count, seed))
    assert tape.recorded == 0


def test_weights_that_change_in_place_are_seen(network):
    replayed = Replayed(network, Tape())
    with torch.no_grad():
        for seed in range(PATIENCE + 4):
            for parameter in network.parameters():
                parameter.lerp_(torch.full_like(parameter, 0.1), 0.2)
            given = inputs(2, seed)
            assert torch.equal(replayed(*given), network(*given))


def test_inference_mode_may_come_and_go(network):
    replayed = Replayed(network, Tape())
    for seed in range(PATIENCE + 6):
        with torch.inference_mode(seed % 2 == 0), torch.no_grad():
            given = inputs(2, seed)
            assert torch.equal(replayed(*given), network(*given))


class Reading(Network):
    def forward(self, x, time, labels=None):
        return super().forward(x, time) * float(x.max())


class Pair(Network):
    def forward(self, x, time, labels=None):
        return super().forward(x, time), time


@pytest.mark.parametrize(("kind", "why"), [(Reading, "waits for the device"), (Pair, "returned a tuple")])
def test_where_recording_is_impossible_one_line_says_so_and_calls_go_on(kind, why):
    network, tape, said = kind(), Tape(), []
    replayed = Replayed(network, tape, said.append)
    with torch.inference_mode():
        for seed in range(PATIENCE + 5):
            given = inputs(2, seed)
            torch.testing.assert_close(replayed(*given), network(*given), rtol=0, atol=0)
    assert (tape.recorded, tape.repeated) == (1, 0)
    assert len(said) == 1
    assert why in said[0].splitlines()[-1]
    assert "\n" not in said[0]


def test_calls_that_no_recording_can_tell_apart_are_made_as_they_come():
    tape = Tape()
    replayed = Replayed(lambda x, options: x * options["by"], tape)
    x = torch.ones(2)
    for number in range(2 * PATIENCE):
        assert torch.equal(replayed(x, {"by": number}), x * number)
    assert tape.recorded == 0


def test_tensors_of_a_cpu_are_not_for_cuda_graphs():
    network, given = Network(), inputs(2, 0)
    replayed = Replayed(network, CudaGraphs())
    with torch.inference_mode():
        for _ in range(PATIENCE + 2):
            assert torch.equal(replayed(*given), network(*given))


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_cuda_graphs_give_the_same_bits(dtype):
    network = Network().to("cuda", dtype)
    graphs, said = CudaGraphs(), []
    replayed = Replayed(network, graphs, said.append)
    with torch.inference_mode():
        drawn = [inputs(count, seed) for seed in range(PATIENCE + 6) for count in (64, 5)]
        calls = [(x.to("cuda", dtype), time.to("cuda", dtype), labels.cuda()) for x, time, labels in drawn]
        found = [replayed(*each) for each in calls]
        for each, output in zip(calls, found, strict=True):
            assert torch.equal(output, network(*each))
    assert not said
    assert len(replayed._recordings) == 2


@pytest.mark.gpu
def test_on_a_gpu_too_what_waits_cannot_be_recorded():
    network, said = Reading().cuda(), []
    replayed = Replayed(network, CudaGraphs(), said.append)
    stream = torch.cuda.current_stream()
    with torch.inference_mode():
        for seed in range(PATIENCE + 3):
            given = [each.cuda() for each in inputs(2, seed)]
            assert torch.equal(replayed(*given), network(*given))
    assert len(said) == 1
    assert torch.cuda.current_stream() == stream
