"""One way to time: contestants take turns, in a new order every round, and are compared within a round.

Machines differ and are shared, so a time alone means little. What is reported beside the times is the *paired
ratio*: other / ours within a round, median over rounds, whatever else the machine was doing in that round.
Above 1, ours is the faster.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch

Spread = dict[str, float]
"""median, p20 and p80."""

Fact = float | str


@dataclass(frozen=True)
class Contestant:
    """What takes turns: a call of `work` does `count` units.

    prepare: called before each turn, off the clock; facts: what is known of a unit or of the contestant:
    "bytes" it cannot do without, "flops", "precision", "peak_bytes", "parameters", ...
    """

    name: str
    work: Callable[[], object]
    count: float = 1.0
    prepare: Callable[[], object] | None = None
    facts: Mapping[str, Fact] = field(default_factory=dict)


@dataclass(frozen=True)
class Row:
    """One contestant of one comparison.

    part, what: the comparison; unit: what `seconds` are for one of; ratio: this contestant's time over the
    first one's in the same round, None of the first itself.
    """

    part: str
    what: str
    name: str
    unit: str
    seconds: Spread
    ratio: Spread | None
    facts: Mapping[str, Fact]


@dataclass(frozen=True)
class Clock:
    """Times contestants on a device; `rounds` count, `warmup` rounds before them do not.

    least: seconds that a turn lasts at least. What is done sooner is done again within the turn, as often as
    the last round of warming up says: a millisecond alone is mostly what else the machine was doing.
    """

    device: torch.device
    rounds: int
    warmup: int = 1
    least: float = 0.0

    def turns(self, contestants: Sequence[Contestant]) -> list[list[float]]:
        """Seconds a unit, in every round, for each contestant."""
        cache = _beyond_the_cache(self.device)
        seconds: list[list[float]] = [[] for _ in contestants]
        calls = [1] * len(contestants)
        places = list(range(len(contestants)))
        for turn in range(self.warmup + self.rounds):
            first = turn % len(places)
            order = places[first:] + places[:first]
            # Backwards every other lap, or everybody would always follow the same one.
            for place in order[::-1] if turn // len(places) % 2 else order:
                contestant, total = contestants[place], 0.0
                for _ in range(calls[place]):
                    if contestant.prepare is not None:
                        contestant.prepare()
                    if cache is not None:
                        cache.zero_()
                    total += self.time(contestant.work)
                seconds[place].append(total / calls[place] / contestant.count)
                if turn == self.warmup - 1:
                    calls[place] = max(1, math.ceil(self.least / max(total, 1e-6)))
        return [each[self.warmup :] for each in seconds]

    def time(self, work: Callable[[], object]) -> float:
        """Wall seconds of one call, until the device has done it."""
        wait(self.device)
        start = time.perf_counter()
        work()
        wait(self.device)
        return time.perf_counter() - start


def compare(part: str, what: str, unit: str, contestants: Sequence[Contestant], clock: Clock) -> list[Row]:
    """Times contestants, the first of which is ours; a row each, in order."""
    times = clock.turns(contestants)
    rows = []
    for contestant, seconds in zip(contestants, times, strict=True):
        pairs = [theirs / ours for theirs, ours in zip(seconds, times[0], strict=True)]
        ratio = None if contestant is contestants[0] else spread(pairs)
        rows.append(Row(part, what, contestant.name, unit, spread(seconds), ratio, dict(contestant.facts)))
    return rows


def spread(values: Sequence[float]) -> Spread:
    """Median, 20th and 80th percentile of at least two values."""
    fifths = statistics.quantiles(values, n=5, method="inclusive")
    return {"median": statistics.median(values), "p20": fifths[0], "p80": fifths[3]}


def wait(device: torch.device) -> None:
    """Until the device has done what was asked of it."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _beyond_the_cache(device: torch.device) -> torch.Tensor | None:
    """What to overwrite so that a turn finds nothing of the last one in a GPU's L2; None on a CPU."""
    if device.type != "cuda":
        return None
    size = torch.cuda.get_device_properties(device).L2_cache_size
    return torch.empty(4 * size, dtype=torch.uint8, device=device)
