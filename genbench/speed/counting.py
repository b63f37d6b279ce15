"""How much arithmetic and traffic a computation is, operation by operation as eager PyTorch runs it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode


class _Traffic(TorchDispatchMode):
    """Adds up what operations read and write; views and empty tensors are free."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0
        self.elements = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        read = [each for each in tree_leaves((args, kwargs)) if isinstance(each, Tensor)]
        written = [each for each in tree_leaves(out) if isinstance(each, Tensor)]
        inputs = {each.untyped_storage().data_ptr() for each in read}
        in_place = func._schema.is_mutable
        if written and not in_place and all(w.untyped_storage().data_ptr() in inputs for w in written):
            return out
        if not read:  # made, not computed: noise is drawn by one operation, which writes it
            self.bytes += sum(each.nbytes for each in written if "empty" not in func.__name__)
            return out
        self.bytes += sum(each.nbytes for each in (*read, *written))
        self.elements += sum(each.numel() for each in written)
        return out


def counted(function: Callable[[], object]) -> dict[str, float]:
    """{"flops", "bytes"} of one call: of products and convolutions their multiplications and additions, of
    everything else one operation a number written.
    """
    traffic, products = _Traffic(), FlopCounterMode(display=False)
    with torch.no_grad(), products, traffic:
        function()
    return {"flops": float(products.get_total_flops() + traffic.elements), "bytes": float(traffic.bytes)}
