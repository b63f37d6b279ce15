"""In what order the critic and the generator of a game are updated."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol

from genbench.contracts import Phase, Together, UserError


class Updates(Protocol):
    """How the two phases of a game make up a training step."""

    def arrange(self, critic: Phase, generator: Phase) -> Sequence[Phase | Together]:
        """The phases of one training step, in order."""


class Simultaneous:
    """One gradient step for both, taken at the same weights (Nowozin et al. 2016, algorithm 1)."""

    def arrange(self, critic: Phase, generator: Phase) -> Sequence[Phase | Together]:
        return [Together([critic, generator])]


class Alternating:
    """`critic_steps` steps of the critic, each on a batch of its own, then one of the generator."""

    def __init__(self, critic_steps: int = 1) -> None:
        if critic_steps < 1:
            raise UserError(f"updates.critic_steps={critic_steps}: the critic takes at least 1 step.")
        self.critic_steps = critic_steps

    def arrange(self, critic: Phase, generator: Phase) -> Sequence[Phase | Together]:
        return [replace(critic, repeats=self.critic_steps), generator]
