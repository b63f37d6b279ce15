"""The one way to time: whose turn it is, what is on the clock, and what is made of the times."""

from __future__ import annotations

import pytest
import torch

from genbench.speed import turns
from genbench.speed.turns import Clock, Contestant, compare, spread

CPU = torch.device("cpu")


def test_contestants_take_turns_and_nobody_always_follows_the_same_one():
    calls: list[str] = []
    contestants = [Contestant(name, lambda name=name: calls.append(name)) for name in "abc"]
    Clock(CPU, rounds=11, warmup=1).turns(contestants)
    rounds = ["".join(calls[i : i + 3]) for i in range(0, len(calls), 3)]
    assert len(rounds) == 12
    assert all(sorted(each) == ["a", "b", "c"] for each in rounds)
    assert {each[0] for each in rounds} == {"a", "b", "c"}
    assert {each[i : i + 2] for each in rounds for i in range(2)} == {"ab", "bc", "ca", "ba", "cb", "ac"}


def test_ratios_are_paired_within_a_round(monkeypatch):
    contestants = [Contestant("ours", lambda: None, count=4), Contestant("theirs", lambda: None, count=4)]
    # A round that does not count; then theirs goes first, then theirs and ours, in laps that turn round.
    turns_taken = [9, 9, 2, 1, 5, 10, 4, 20]
    clock = iter(value for each in turns_taken for value in (0, each))
    monkeypatch.setattr(turns.time, "perf_counter", lambda: next(clock))
    ours, theirs = compare("part", "what", "step", contestants, Clock(CPU, rounds=3, warmup=1))
    # Ours took 1, 10, 4 and theirs 2, 5, 20: pairs say 2, 1/2 and 5; medians would say 5 / 4.
    assert ours.ratio is None
    assert theirs.ratio == {"median": 2.0, "p20": pytest.approx(1.1), "p80": pytest.approx(3.8)}
    assert ours.seconds["median"] == 1.0  # a unit, of four a call
    assert theirs.seconds["median"] == 1.25
    assert (theirs.part, theirs.what, theirs.name, theirs.unit) == ("part", "what", "theirs", "step")


def test_preparing_is_off_the_clock_and_comes_before_each_turn(monkeypatch):
    happened: list[str] = []
    monkeypatch.setattr(turns.time, "perf_counter", lambda: happened.append("clock") or 0.0)
    contestant = Contestant("a", lambda: happened.append("work"), prepare=lambda: happened.append("prepare"))
    Clock(CPU, rounds=2, warmup=0).turns([contestant])
    assert happened == 2 * ["prepare", "clock", "work", "clock"]


def test_short_work_is_repeated_until_a_turn_is_long_enough(monkeypatch):
    happened: list[str] = []
    clock = iter(value for _ in range(100) for value in (0.0, 0.006))
    monkeypatch.setattr(turns.time, "perf_counter", lambda: next(clock))
    contestant = Contestant("a", lambda: happened.append("work"), 3, lambda: happened.append("prepare"))
    (seconds,) = Clock(CPU, rounds=2, warmup=1, least=0.02).turns([contestant])
    assert happened == 9 * ["prepare", "work"]  # once to warm up, then four times a turn
    assert seconds == pytest.approx([0.002, 0.002])  # of a unit still


def test_warm_up_does_not_count():
    (seconds,) = Clock(CPU, rounds=3, warmup=2).turns([Contestant("a", lambda: None)])
    assert len(seconds) == 3


def test_spread_is_median_and_percentiles():
    assert spread([5.0, 1.0, 3.0, 2.0, 4.0, 0.0]) == {"median": 2.5, "p20": 1.0, "p80": 4.0}
