"""Types and ranges of the settings people type, checked before anything is imported or started.

A table: the answer to a mistake should not depend on which part of the suite would trip over it first.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from genbench.errors import UserError
from genbench.precisions import AUTO, PRECISIONS


@dataclass(frozen=True)
class Whole:
    """A whole number from `least` up; None too where `optional`."""

    least: int
    optional: bool = False

    def accepts(self, value: Any) -> bool:
        if value is None:
            return self.optional
        return isinstance(value, int) and not isinstance(value, bool) and value >= self.least

    def __str__(self) -> str:
        return f"a whole number from {self.least} up{' or null' if self.optional else ''}"


@dataclass(frozen=True)
class Real:
    """A number above zero, or zero too where `zero`; None too where `optional`."""

    zero: bool = False
    optional: bool = False

    def accepts(self, value: Any) -> bool:
        if value is None:
            return self.optional
        if isinstance(value, bool) or not isinstance(value, int | float):
            return False
        return value >= 0 if self.zero else value > 0

    def __str__(self) -> str:
        return f"a number {'from 0 up' if self.zero else 'above 0'}{' or null' if self.optional else ''}"


@dataclass(frozen=True)
class Truth:
    """true or false."""

    def accepts(self, value: Any) -> bool:
        return isinstance(value, bool)

    def __str__(self) -> str:
        return "true or false"


@dataclass(frozen=True)
class TruthOr:
    """true, false, a word for a third choice, or an object of one's own (`_target_`)."""

    word: str

    def accepts(self, value: Any) -> bool:
        return isinstance(value, bool | Mapping) or value == self.word

    def __str__(self) -> str:
        return f"true, false or {self.word}"


@dataclass(frozen=True)
class Text:
    """A word or more."""

    def accepts(self, value: Any) -> bool:
        return isinstance(value, str) and bool(value.strip())

    def __str__(self) -> str:
        return "text"


@dataclass(frozen=True)
class Several:
    """A list of what `each` accepts, of at least one unless it may be `empty`, all `different` or not."""

    each: Whole | Real | Text
    empty: bool = False
    different: bool = False

    def accepts(self, value: Any) -> bool:
        return (
            isinstance(value, list)
            and (self.empty or bool(value))
            and all(self.each.accepts(one) for one in value)
            and not (self.different and len(set(value)) < len(value))
        )

    def __str__(self) -> str:
        return f"a list, [...], of which each is {self.each}{', no two the same' if self.different else ''}"


@dataclass(frozen=True)
class Range:
    """Two numbers, the first below the second; None too."""

    def accepts(self, value: Any) -> bool:
        if value is None:
            return True
        numbers = isinstance(value, list) and len(value) == 2
        numbers = numbers and all(isinstance(v, int | float) and not isinstance(v, bool) for v in value)
        return numbers and -math.inf < value[0] < value[1] < math.inf

    def __str__(self) -> str:
        return "two numbers, the first below the second, such as [-1,1], or null"


@dataclass(frozen=True)
class OneOf:
    """One of a few words, or of true and false."""

    choices: tuple[str | bool, ...]

    def accepts(self, value: Any) -> bool:
        return any(value is each or (isinstance(each, str) and value == each) for each in self.choices)

    def __str__(self) -> str:
        shown = [str(each).lower() if isinstance(each, bool) else each for each in self.choices]
        return f"{', '.join(shown[:-1])} or {shown[-1]}"


SETTINGS: Mapping[str, Whole | Real | Truth | TruthOr | OneOf | Several | Range] = {
    "seed": Whole(0),
    "threads": Whole(1, optional=True),
    "conditional": Truth(),
    "n": Whole(1),
    "images_range": Range(),
    "trainer.steps": Whole(1),
    "trainer.batch_size": Whole(1),
    "trainer.accumulate": Whole(1),
    "trainer.compile": OneOf((True, False, "reduce-overhead")),
    "trainer.precision": OneOf((AUTO, *PRECISIONS)),
    "trainer.log_every": Whole(1),
    "trainer.sample_every": Whole(1, optional=True),
    "trainer.evaluate_every": Whole(1, optional=True),
    "trainer.evaluate_samples": Whole(1),
    "trainer.checkpoint_every": Whole(1, optional=True),
    "trainer.keep": Whole(1),
    "optim.lr": Real(),
    "optim.warmup": Whole(0),
    "optim.clip": Real(optional=True),
    "sampler.steps": Whole(1),
    "sampler.batch_size": Whole(1),
    "sampler.precision": OneOf((AUTO, *PRECISIONS)),
    "sampler.compile": Truth(),
    "sampler.graphs": OneOf((True, False, "trajectory")),
    "sampler.clip": TruthOr("dynamic"),
    "sampler.rule.eta": Real(zero=True),
    "dataset.flip": Truth(),
    "metrics.n_samples": Whole(1),
    "metrics.seeds": Several(Whole(0), different=True),
    "metrics.batch_size": Whole(1),
    "solvers.samplers": Several(Text()),
    "solvers.steps": Several(Whole(1)),
    "solvers.tolerances": Several(Real()),
    "solvers.images": Whole(1),
    "runs": Several(Text(), empty=True),
    "groups": Several(Text(), empty=True),
    "walk.beside": Several(Text(), empty=True),
    "speed.parts": Several(Text()),
    "speed.rounds": Whole(2, optional=True),
    "speed.peers": Several(Text(), empty=True),
}
"""What each setting must be, where a configuration has it."""


def check(config: Mapping[str, Any]) -> None:
    """Raises UserError naming every setting of `config` whose type or range is wrong, and what it may be."""
    wrong = []
    for key, kind in SETTINGS.items():
        found: Any = config
        for part in key.split("."):
            found = found.get(part, _ABSENT) if isinstance(found, Mapping) else _ABSENT
        if found is not _ABSENT and not kind.accepts(found):
            wrong.append(f"{key}={found}: type {kind}.")
    if wrong:
        raise UserError(wrong[0] if len(wrong) == 1 else "\n  " + "\n  ".join(wrong))


_ABSENT = object()
