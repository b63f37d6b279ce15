"""What to type when memory has run out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def advice(error: BaseException, config: Mapping[str, Any]) -> str | None:
    """Where `error` says that a device or the host had no memory left, the settings that need less of it.

    None for any other error.
    """
    import torch

    host = "DefaultCPUAllocator" in str(error)  # torch has no class of its own for it
    if not (host or isinstance(error, torch.OutOfMemoryError | MemoryError)):
        return None
    trainer, drawn, scored = (
        config["trainer"],
        config["sampler"]["batch_size"],
        config["metrics"]["batch_size"],
    )
    pieces, batch, precision = trainer["accumulate"], trainer["batch_size"], trainer["precision"]
    said = (str(error).strip() or type(error).__name__).splitlines()[0]
    return (
        f"out of memory ({said}).\n"
        f"  while training: trainer.accumulate={2 * pieces} (now {pieces}; batches stay {batch}), or\n"
        f"                  trainer.precision=bf16 (now {precision}), in a new run_dir\n"
        f"  while sampling: sampler.batch_size={max(1, drawn // 4)} (now {drawn})\n"
        f"  while scoring:  metrics.batch_size={max(1, scored // 4)} (now {scored})\n"
        "The last two change no result: the same command with them goes on in the same run_dir."
    )
