"""Two gloo processes on a CPU: gradients, sums and gathered rows are those of one process."""

from __future__ import annotations

import os
import socket
from functools import partial

import pytest
import torch
import torch.multiprocessing as multiprocessing
from torch import nn

from genbench.contracts import Batch, Generator, Losses, Phase, Step, UserError
from genbench.harness.distributed import Ranks, resolve_device
from genbench.harness.finite import NotFinite
from genbench.harness.optimizers import Constant
from genbench.harness.phases import Computation, Plan, Recipe


class Regression(Generator):
    image_shape = (1, 1, 1)

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.network = nn.Linear(3, 2).double()
        self.unused = nn.Linear(1, 1).double()

    def phases(self):
        return [Phase("fit", self, self._loss)]

    def _loss(self, batch: Batch, step: Step) -> Losses:
        return Losses((self.network(batch.images.flatten(1)) - 1).square().mean() / batch.index[0])


def images() -> torch.Tensor:
    return torch.randn(8, 3, 1, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(3))


def gradients(ranks: Ranks, divisor: int = 1) -> torch.Tensor:
    """The gradient at the start, from this rank's share of the images."""
    model = Regression()
    recipe = lambda phase: Recipe(partial(torch.optim.SGD), 0.1, Constant(), None)
    plan = Plan(model, recipe, Computation(torch.device("cpu"), None, 1, 0, ranks))
    share = images().chunk(ranks.world)[ranks.rank]
    plan.optimisations["fit"].gradients(Batch(share, None, torch.full((len(share),), divisor)), Step(0, 1))
    return model.network.weight.grad


def work(rank: int, world: int, port: int, expected: torch.Tensor) -> None:
    os.environ.update(
        RANK=str(rank),
        LOCAL_RANK=str(rank),
        WORLD_SIZE=str(world),
        MASTER_ADDR="127.0.0.1",
        MASTER_PORT=str(port),
    )
    torch.set_num_threads(1)
    ranks = Ranks.initialise(torch.device("cpu"))
    try:
        assert (ranks.rank, ranks.world, ranks.leads) == (rank, world, rank == 0)
        assert torch.allclose(gradients(ranks), expected, atol=1e-15)
        sums = [torch.tensor([1.0 + rank]), torch.full((2, 2), 10.0**rank, dtype=torch.float64)]
        ranks.sum_tensors(sums)
        assert sums[0].item() == 3.0
        assert torch.equal(sums[1], torch.full((2, 2), 11.0, dtype=torch.float64))
        rows = torch.arange(6).reshape(3, 2)[: 3 - rank] + 100 * rank
        gathered = ranks.gather_rows(rows)
        assert gathered.tolist() == [[0, 1], [2, 3], [4, 5], [100, 101], [102, 103]]
        assert ranks.any(rank == 1, torch.device("cpu"))
        assert not ranks.any(False, torch.device("cpu"))
        assert ranks.broadcast_text("first" if rank == 0 else None) == "first"
        # A loss that is not finite on one rank stops both, instead of leaving one waiting for the other.
        try:
            gradients(ranks, divisor=0 if rank == 1 else 1)
        except NotFinite:
            return
        raise AssertionError("a non-finite loss on rank 1 did not stop this rank")
    finally:
        ranks.close()


def test_two_ranks_compute_what_one_does():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    multiprocessing.spawn(work, args=(2, port, gradients(Ranks())), nprocs=2)


def test_one_process_needs_no_group():
    ranks = Ranks()
    tensor = torch.tensor([2.0])
    ranks.sum_tensors([tensor])
    ranks.barrier()
    assert tensor.item() == 2.0
    assert torch.equal(ranks.gather_rows(tensor), tensor)


@pytest.mark.parametrize("name", ["tpu7", "meta"])
def test_devices_that_are_not_there_are_refused(name):
    with pytest.raises(UserError, match=f"device={name}"):
        resolve_device(name)
