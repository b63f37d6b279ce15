"""Whether training is finite still, without the CPU waiting for a GPU at every step.

On a CPU a look costs nothing: a loss or a gradient that is not finite stops training at once. On a GPU a look
waits for all that was asked of it, and the CPU, instead of running ahead, starts every step late. There a
flag stays on the device. Once it is set, torch's fused optimizers leave weights and moments as they are
(`found_inf`, which loss scaling made them understand), and somebody looks when a wait is due anyway: before
logging and before a checkpoint. Optimizers that do not understand the flag are looked after at every step.
"""

from __future__ import annotations

import torch
from torch import Tensor

from genbench.contracts import Step
from genbench.harness.distributed import Ranks


class NotFinite(Exception):
    """A loss or a gradient was not finite; no weight has been touched since."""


class Finite:
    """The first thing that was not finite, on any rank. later: whether it is told only by `look`."""

    def __init__(self, device: torch.device, ranks: Ranks, later: bool | None = None) -> None:
        self.later = device.type != "cpu" if later is None else later
        self.found = torch.zeros((), device=device)
        """1 once anything was not finite, else 0; float32, as `found_inf` is."""
        self._ranks = ranks
        self._names: list[str] = []
        self._first = torch.zeros(3, dtype=torch.float64, device=device)  # name's place, step, value

    def note(self, value: Tensor, name: str, step: Step) -> None:
        """Remembers a scalar where it is the first that is not finite. A collective: every rank notes it."""
        if name not in self._names:
            self._names.append(name)
        value = value.detach().double()
        bad, before = ~torch.isfinite(value), self.found.clone()
        self.found.copy_(torch.maximum(self.found, bad.float()))
        self._ranks.maximum(self.found)
        place, at = (torch.full_like(value, x) for x in (self._names.index(name), step.index))
        # 0, which is finite, stands for a value that another rank has seen.
        told = torch.stack((place, at, torch.where(bad, value, 0.0)))
        self._first = torch.where(self.found > before, told, self._first)
        if not self.later:
            self.look()

    def guard(self, optimizer: torch.optim.Optimizer) -> None:
        """Makes sure that the next step of `optimizer` changes nothing where something was not finite."""
        if not self.later:
            return
        if getattr(optimizer, "_step_supports_amp_scaling", False):
            optimizer.found_inf = self.found  # type: ignore[attr-defined]
        else:
            self.look()

    def look(self) -> None:
        """Raises NotFinite on every rank where something was not finite on any. Waits for the device."""
        if not bool(self.found > 0):
            return
        place, step, value = self._first.tolist()
        seen = f"({value:g} on rank {self._ranks.rank})" if value else "(on another rank)"
        raise NotFinite(f"The {self._names[int(place)]} is not finite at step {int(step)} {seen}.")
