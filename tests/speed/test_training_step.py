"""The comparison of training steps: who takes part, in which order, and what is made of the times."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from genbench.contracts import UserError
from genbench.speed import training_step
from genbench.speed.training_step import BFLOAT16, FLOAT32, Peer, compare, imported_peer, spread


class Recorded(nn.Module):
    """A network of two parameters that writes down when it is called and in which precision."""

    def __init__(self, name: str, calls: list[tuple[str, torch.dtype]]) -> None:
        super().__init__()
        self.name, self.calls = name, calls
        self.layer = nn.Conv2d(3, 3, 1, groups=3, bias=False)
        self.before: Tensor | None = None

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        assert x.shape == (2, 3, 32, 32)
        assert time.dtype == torch.int64
        if self.before is not None:
            assert not torch.equal(self.before, self.layer.weight)  # a step was taken since
        self.before = self.layer.weight.detach().clone()
        out: Tensor = self.layer(x)
        self.calls.append((self.name, out.dtype))
        return out


def test_networks_take_turns_in_every_round_and_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[str, torch.dtype]] = []
    monkeypatch.setattr(training_step, "ours", lambda: Peer("ours", lambda: Recorded("ours", calls)))
    peers = [Peer(name, lambda name=name: Recorded(name, calls)) for name in ("first", "second")]
    rows = compare(peers, precisions=(FLOAT32, BFLOAT16), batch_size=2, rounds=3, warmup=1)

    assert [dtype for _, dtype in calls] == 12 * [torch.float32] + 12 * [torch.bfloat16]
    turns = [[name for name, _ in calls[i : i + 3]] for i in range(0, 24, 3)]
    assert all(sorted(turn) == ["first", "ours", "second"] for turn in turns)
    assert {turn[0] for turn in turns[:4]} == {"ours", "first", "second"}  # nobody always goes first

    assert [(row["precision"], row["name"]) for row in rows] == [
        (precision, name) for precision in ("fp32", "bf16") for name in ("ours", "first", "second")
    ]
    assert all(row["parameters"] == 3 for row in rows)
    assert ["ratio" in row for row in rows] == 2 * [False, True, True]


def test_ratios_are_paired_within_a_round(monkeypatch: pytest.MonkeyPatch) -> None:
    # A machine ten times slower in one round: medians of the times would say 20 / 1, pairs say 2.
    clock = iter([0, 1, 0, 2, 0, 20, 0, 10, 0, 1, 0, 2])  # start and end of each step, in order of turns
    calls: list[tuple[str, torch.dtype]] = []
    monkeypatch.setattr(training_step, "ours", lambda: Peer("ours", lambda: Recorded("ours", calls)))
    monkeypatch.setattr(training_step.time, "perf_counter", lambda: next(clock))
    rows = compare([Peer("p", lambda: Recorded("p", calls))], (FLOAT32,), batch_size=2, rounds=3, warmup=0)
    assert rows[1]["ratio"] == {"median": 2.0, "p20": 2.0, "p80": 2.0}
    assert rows[1]["milliseconds"]["median"] == 2000


def test_spread_is_median_and_percentiles() -> None:
    assert spread([5.0, 1.0, 3.0, 2.0, 4.0, 0.0]) == {"median": 2.5, "p20": 1.0, "p80": 4.0}


def test_a_peer_is_found_by_its_import_path() -> None:
    assert imported_peer("torch.nn:Identity").build is nn.Identity
    assert imported_peer("torch.nn:Identity").name == "torch"
    for path in ("no_such_package:build", "torch.nn:no_such_name", "torch.nn", ""):
        with pytest.raises(UserError, match="expected package"):
            imported_peer(path)
