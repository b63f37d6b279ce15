"""The products and convolutions of a computation by themselves: what no arrangement of the rest can avoid.

A network's time is theirs and that of everything between them (normalisation, activations, copies, Python).
Who shares a library of products with us shares this part too, so it bounds every ratio between two networks
of one size: other / ours is at most other / this.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

ALONE = "genbench's products and convolutions alone"
"""What the row is called."""


class Arithmetic(TorchDispatchMode):
    """Within, remembers the calls that multiply matrices, convolve or attend, both ways; `again` makes them.

    It keeps their arguments: as much memory as a training step that frees nothing. Not in inference mode, in
    which operations made of others come whole.
    """

    def __init__(self) -> None:
        super().__init__()
        self._calls: list[tuple[Any, Any, Any]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func._overloadpacket in flop_registry:
            self._calls.append((func, args, kwargs or {}))
        return func(*args, **(kwargs or {}))

    def __len__(self) -> int:
        return len(self._calls)

    @torch.no_grad()
    def again(self) -> None:
        """The calls, in order, with the arguments that they had."""
        for func, args, kwargs in self._calls:
            func(*args, **kwargs)


def arithmetic(work: Callable[[], object]) -> Arithmetic:
    """What one call of `work` multiplies."""
    with Arithmetic() as found:
        work()
    return found
