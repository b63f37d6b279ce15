"""What stands in for CUDA graphs where there is no GPU: PyTorch's operations written down and done again.

As with a graph, Python runs once; operations repeat on the memory they had then; nothing has been computed
before the first repetition; and what reads a number back cannot be recorded.

All is on a CPU here, so what would be the host's is guessed: tensors made of no others, given ones that are
numbers or in float64, as coefficients are, and what is computed from these alone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

aten = torch.ops.aten
READS = (aten._local_scalar_dense.default, aten.item.default, aten.is_nonzero.default, aten.nonzero.default)


class Tape:
    """A recorder for tests. recorded, repeated: how often it was asked to."""

    def __init__(self) -> None:
        self.recorded = 0
        self.repeated = 0

    def takes(self, tensor: Tensor) -> bool:
        return True

    def record(self, work: Callable[[], Tensor]) -> tuple[Callable[[], None], Tensor]:
        self.recorded += 1
        with _Written() as written:
            place = work()

        def repeat() -> None:
            self.repeated += 1
            with torch.inference_mode():  # in which what was made in it can be written to
                written.repeat()

        written.spoil()
        return repeat, place


class _Written(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.operations: list[tuple[Any, Any, Any, Any]] = []
        self.places: dict[int, bool] = {}
        """Of memory that was seen: is it the host's?"""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        hosts = all(self._hosts(each) for each in _tensors((args, kwargs)))
        if func in READS and not hosts:
            raise RuntimeError(f"{func} waits for the device\nand more that nobody needs to read")
        result = func(*args, **(kwargs or {}))
        for each in _tensors(result):
            # Memory that is written to, in whole or in part, with something of the device's is the device's.
            self.places[_memory(each)] = hosts and self.places.get(_memory(each), True)
        self.operations.append((func, args, kwargs or {}, result))
        return result

    def _hosts(self, given: Tensor) -> bool:
        return self.places.setdefault(_memory(given), given.ndim == 0 or given.dtype == torch.float64)

    def repeat(self) -> None:
        for func, args, kwargs, result in self.operations:
            for old, new in zip(_tensors(result), _tensors(func(*args, **kwargs)), strict=True):
                if old.data_ptr() != new.data_ptr():  # neither a view nor written in place
                    old.copy_(new)

    def spoil(self) -> None:
        """Makes useless what was computed while recording."""
        given: set[int] = set()
        made: dict[int, Tensor] = {}
        for _, args, kwargs, result in self.operations:
            given |= {_memory(each) for each in _tensors((args, kwargs))} - made.keys()
            made |= {_memory(each): each for each in _tensors(result) if _memory(each) not in given}
        for each in made.values():
            if each.is_floating_point():
                each.fill_(float("nan"))


def _memory(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def _tensors(tree: Any) -> list[Tensor]:
    return [each for each in tree_leaves(tree) if isinstance(each, Tensor)]
