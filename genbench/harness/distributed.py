"""Data parallelism through torch.distributed: who we are, and the few collectives the suite needs.

Launch with `torchrun --nproc_per_node=N -m genbench ...`; rank and world size come from the environment.
Every rank holds the whole model and its share of each batch; gradients are averaged after the backward pass,
so a phase is an ordinary function of a batch and needs no wrapper.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from genbench.contracts import UserError


@dataclass(frozen=True)
class Ranks:
    """This process among its peers. One process alone is rank 0 of 1, and its collectives do nothing."""

    rank: int = 0
    world: int = 1
    local_rank: int = 0

    @property
    def leads(self) -> bool:
        """True on the rank that writes files and speaks."""
        return self.rank == 0

    @classmethod
    def initialise(cls, device: torch.device) -> Ranks:
        """Joins the process group that torchrun announces; gloo on a CPU, NCCL on CUDA."""
        world = int(os.environ.get("WORLD_SIZE", "1"))
        if world == 1:
            return cls()
        if not dist.is_initialized():
            backend = "nccl" if device.type == "cuda" else "gloo"
            dist.init_process_group(backend, timeout=timedelta(minutes=30))
        return cls(dist.get_rank(), world, int(os.environ.get("LOCAL_RANK", "0")))

    def close(self) -> None:
        """Leaves the process group, if one was joined."""
        if self.world > 1 and dist.is_initialized():
            dist.destroy_process_group()

    def barrier(self) -> None:
        """Waits for every rank."""
        if self.world > 1:
            dist.barrier()

    def sum_tensors(self, tensors: Sequence[Tensor]) -> None:
        """Sums each tensor over ranks, in place."""
        if self.world > 1:
            for tensor in tensors:
                dist.all_reduce(tensor)

    def maximum(self, tensor: Tensor) -> None:
        """Makes a tensor the largest over ranks, element by element, in place."""
        if self.world > 1:
            dist.all_reduce(tensor, dist.ReduceOp.MAX)

    def average_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Averages gradients over ranks in one flat message a dtype; a missing gradient counts as zero."""
        if self.world == 1:
            return
        by_dtype: dict[torch.dtype, list[Tensor]] = {}
        for parameter in parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            by_dtype.setdefault(parameter.grad.dtype, []).append(parameter.grad)
        for gradients in by_dtype.values():
            flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
            dist.all_reduce(flat)
            flat.div_(self.world)
            pieces = flat.split([gradient.numel() for gradient in gradients])
            torch._foreach_copy_(gradients, [p.view_as(g) for p, g in zip(pieces, gradients, strict=True)])

    def any(self, flag: bool, device: torch.device) -> bool:
        """Whether the flag is set on any rank; every rank gets the same answer."""
        if self.world == 1:
            return flag
        total = torch.tensor(float(flag), device=device)
        dist.all_reduce(total)
        return bool(total > 0)

    def gather_rows(self, rows: Tensor) -> Tensor:
        """The rows of every rank, in rank order, on every rank; ranks may hold different numbers of rows."""
        if self.world == 1:
            return rows
        count = torch.tensor([len(rows)], device=rows.device)
        counts = [torch.zeros_like(count) for _ in range(self.world)]
        dist.all_gather(counts, count)
        longest = int(torch.cat(counts).max())
        padded = rows.new_zeros((longest, *rows.shape[1:]))
        padded[: len(rows)] = rows
        gathered = [torch.empty_like(padded) for _ in range(self.world)]
        dist.all_gather(gathered, padded)
        return torch.cat([part[: int(n)] for part, n in zip(gathered, counts, strict=True)])

    def broadcast(self, tensors: Iterable[Tensor]) -> None:
        """Makes each tensor rank 0's, in place."""
        if self.world > 1:
            for tensor in tensors:
                dist.broadcast(tensor, src=0)

    def broadcast_text(self, text: str | None) -> str:
        """Rank 0's text, on every rank."""
        if self.world == 1:
            return text or ""
        box = [text]
        dist.broadcast_object_list(box, src=0)
        return box[0] or ""


def refuse_ranks(task: str) -> None:
    """Raises UserError where a task that one process does is launched as several."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise UserError(f"task={task} runs in one process; start it without torchrun.")


def resolve_device(name: str) -> torch.device:
    """`auto`, `cpu`, `cuda` or `cuda:1` as a device; under torchrun, cuda means this rank's own card.

    Raises UserError for a device that is not there.
    """
    local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UserError(f"device={name} is not a device. Type device=auto, cpu, cuda or cuda:0.") from error
    if device.type == "cuda":
        if not torch.cuda.is_available():
            raise UserError(f"device={name}, but no CUDA device can be used here. Type device=cpu.")
        if device.index is None or "LOCAL_RANK" in os.environ:
            device = torch.device("cuda", local_rank)
        if int(os.environ.get("LOCAL_WORLD_SIZE", "1")) > torch.cuda.device_count():
            raise UserError(
                f"{os.environ['LOCAL_WORLD_SIZE']} ranks, but {torch.cuda.device_count()} CUDA devices here. "
                "Give torchrun --nproc_per_node at most that many, or type device=cpu."
            )
        torch.cuda.set_device(device)
        # fp32 means fp32: cuDNN would otherwise round convolutions' factors to TF32's 10 bits.
        backends: Any = torch.backends
        backends.cudnn.conv.fp32_precision = "ieee"
        backends.cuda.matmul.fp32_precision = "ieee"
    elif device.type != "cpu":
        raise UserError(f"device={name}: genbench runs on cpu and cuda.")
    return device
