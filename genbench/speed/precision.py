"""The precisions in which contestants compute, equally for all of them."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Precision:
    """A name, and the dtype autocast computes in; None leaves autocast out."""

    name: str
    autocast: torch.dtype | None = None

    def context(self, device: torch.device) -> contextlib.AbstractContextManager[None]:
        """What to compute within."""
        if self.autocast is None:
            return contextlib.nullcontext()
        return torch.autocast(device.type, dtype=self.autocast)


FLOAT32 = Precision("fp32")
BFLOAT16 = Precision("bf16", torch.bfloat16)
PRECISIONS = (FLOAT32, BFLOAT16)
