"""How kernels are launched: seen through by torch.compile on a GPU, in Triton's interpreter in tests."""

from __future__ import annotations

from typing import Any

from torch.library import wrap_triton
from triton.runtime.jit import JITFunction


def traceable(kernel: Any) -> Any:
    """`kernel` as torch.compile can trace it; itself where Triton interprets (torch 2.11 would refuse it)."""
    return wrap_triton(kernel) if isinstance(kernel, JITFunction) else kernel
