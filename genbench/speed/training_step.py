"""How long a training step takes beside other suites' networks of the same size.

A step is all that depends on the network: clear gradients, forward under the precision asked for, mean
squared error, backward, one step of the same fused Adam. Data, averages and logging cost everyone the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
import torch.nn.functional as F

from genbench.speed import networks
from genbench.speed.arithmetic import ALONE, arithmetic
from genbench.speed.networks import IMAGE_SHAPE, Peer
from genbench.speed.precision import PRECISIONS, Precision
from genbench.speed.turns import Clock, Contestant, Fact, Row, compare

STEPS = 1000
"""Times are integers below this."""


class _Learner:
    """A network with its optimizer and batch, taking training steps."""

    def __init__(self, peer: Peer, precision: Precision, batch_size: int, device: torch.device) -> None:
        torch.manual_seed(0)
        self.precision = precision
        self.network = peer.build().to(device).train()
        self.optimizer = torch.optim.Adam(self.network.parameters(), lr=2e-4, fused=True)
        self.x, self.noise = torch.randn(2, batch_size, *IMAGE_SHAPE, device=device).unbind()
        self.time = torch.randint(STEPS, (batch_size,), device=device)

    @property
    def parameters(self) -> int:
        """How many numbers are learnt."""
        return sum(each.numel() for each in self.network.parameters() if each.requires_grad)

    def step(self) -> None:
        """One training step."""
        self.optimizer.zero_grad(set_to_none=True)
        with self.precision.context(self.x.device):
            loss = F.mse_loss(self.network(self.x, self.time).float(), self.noise)
        loss.backward()
        self.optimizer.step()


def rows(
    peers: Sequence[Peer], batch_size: int, clock: Clock, precisions: Iterable[Precision] = PRECISIONS
) -> list[Row]:
    """Times training steps of our small U-Net and of `peers`; one row a precision and network."""
    found = []
    for precision in precisions:
        contestants = []
        for peer in (networks.ours(), *peers):
            learner = _Learner(peer, precision, batch_size, clock.device)
            facts: dict[str, Fact] = {"precision": precision.name, "parameters": float(learner.parameters)}
            contestants.append(Contestant(peer.name, learner.step, facts=facts))
            if len(contestants) == 1:
                alone = arithmetic(learner.step).again
                contestants.append(Contestant(ALONE, alone, facts={"precision": precision.name}))
        what = f"network's training step, batch {batch_size}, {precision.name}"
        found += compare("training", what, "step", contestants, clock)
    return found
