"""When to stop early: a SIGTERM (or Ctrl-C), or the end of the time budget."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import torch

from genbench.errors import Stopped
from genbench.harness.distributed import Ranks

_RANKS_AGREE_EVERY = 8
"""Steps between the collectives in which several ranks agree to stop; alone, every step is looked at."""


SIGNALS = (signal.SIGTERM, signal.SIGINT)
"""Those that ask a run to stop."""


@contextmanager
def stoppable() -> Iterator[None]:
    """Within it the first of SIGNALS raises Stopped wherever it comes; a second means what it did before.

    For work that the next sitting begins anew.
    """
    before = {number: signal.getsignal(number) for number in SIGNALS}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def stop(number: int, frame: FrameType | None) -> None:
        restore()
        raise Stopped(number)

    try:
        for number in SIGNALS:
            signal.signal(number, stop)
        yield
    finally:
        restore()


class Stopper:
    """Says whether training should stop, and why; all ranks get the same answer at the same step."""

    def __init__(self, deadline: float | None = None) -> None:
        """deadline: a time.monotonic() value, or None."""
        self.deadline = deadline
        self.number: int | None = None
        self._before: dict[int, Any] = {}

    def listen(self) -> None:
        """From here on SIGTERM and SIGINT ask for a clean stop; a second one ends the process at once."""
        for number in SIGNALS:
            self._before[number] = signal.signal(number, self._notice)

    def deafen(self) -> None:
        """Gives SIGTERM and SIGINT back the meaning they had."""
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    def _notice(self, number: int, frame: FrameType | None) -> None:
        self.number = number
        self.deafen()

    def heard(self, ranks: Ranks, device: torch.device) -> bool:
        """Whether any rank was told to stop."""
        return ranks.any(self.number is not None, device)

    def reason(self, step: int, ranks: Ranks, device: torch.device) -> str | None:
        """ "signal", "budget", or None to go on."""
        if ranks.world > 1 and step % _RANKS_AGREE_EVERY:
            return None
        if self.heard(ranks, device):
            return "signal"
        late = self.deadline is not None and time.monotonic() >= self.deadline
        return "budget" if ranks.any(late, device) else None
