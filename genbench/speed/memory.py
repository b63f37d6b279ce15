"""The most memory a computation holds at once, beyond what was held before."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from pathlib import Path

import torch

from genbench.speed.turns import wait

_SELF = Path("/proc/self")


def peak(work: Callable[[], object], device: torch.device) -> float | None:
    """Bytes on a GPU; on a CPU resident bytes of the process, None where the system does not tell."""
    if device.type == "cuda":
        wait(device)
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        work()
        wait(device)
        return float(torch.cuda.max_memory_allocated(device) - before)
    try:
        # What was freed but not given back would be used again without being seen.
        ctypes.CDLL("libc.so.6").malloc_trim(0)
        (_SELF / "clear_refs").write_text("5")  # resets the high-water mark
        before = _status("VmRSS")
        work()
        return float(max(_status("VmHWM") - before, 0))
    except (OSError, AttributeError, StopIteration):
        return None


def _status(name: str) -> int:
    """An entry of the process's status, in bytes."""
    lines = (_SELF / "status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith(name)).split()[1])
