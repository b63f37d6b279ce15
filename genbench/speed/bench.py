"""What every part of task=speed is given: a clock, and the peers at hand."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import ModuleType

import torch

from genbench.speed.turns import Clock


@dataclass(frozen=True)
class Bench:
    """compile: whether compiled contestants take part; named: import paths of further networks to time;
    left_out: a line for everything that has no row.
    """

    clock: Clock
    compile: bool
    named: Sequence[str] = ()
    left_out: list[str] = field(default_factory=list)

    @property
    def device(self) -> torch.device:
        """Where contestants compute."""
        return self.clock.device

    def leave_out(self, line: str) -> None:
        """Notes once what has no row, and why."""
        if line not in self.left_out:
            self.left_out.append(line)

    def peer(self, package: str) -> ModuleType | None:
        """Another suite's package, or None, noted, where it cannot be imported."""
        try:
            return importlib.import_module(package)
        except ImportError as error:
            self.leave_out(f"{package} is not at hand ({error}); pip install 'genbench[peers]' brings it")
            return None
