"""How long a training step takes beside other suites' networks of the same size, in one run.

Machines differ and are shared, so a time alone means little. Networks take turns, one step each and a new
order every round, and what is reported beside the times is the *paired ratio*: other / ours within a round,
median over rounds, whatever else the machine was doing in that round. Above 1, ours is the faster.

A step is all that depends on the network: clear gradients, forward under the precision asked for, mean
squared error, backward, one step of the same fused Adam. Data, averages and logging cost everyone the same.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genbench.contracts import UserError
from genbench.networks.unet import UNet

IMAGE_SHAPE = (3, 32, 32)
STEPS = 1000
"""Times are integers below this."""


@dataclass(frozen=True)
class Peer:
    """A network to time: `build()` gives a module of (x [B, 3, 32, 32], time int64 [B]) -> x's shape."""

    name: str
    build: Callable[[], nn.Module]


@dataclass(frozen=True)
class Precision:
    """A name, and the dtype autocast computes in; None leaves autocast out."""

    name: str
    autocast: torch.dtype | None = None

    def context(self, device: torch.device) -> contextlib.AbstractContextManager[None]:
        if self.autocast is None:
            return contextlib.nullcontext()
        return torch.autocast(device.type, dtype=self.autocast)


FLOAT32 = Precision("fp32")
BFLOAT16 = Precision("bf16", torch.bfloat16)


def ours() -> Peer:
    """The small U-Net: 64 channels, multipliers 1-2-2, two blocks, attention at 16, 6.5 M parameters."""
    return Peer("genbench", lambda: UNet(IMAGE_SHAPE, channels=64, multipliers=(1, 2, 2), attention=(16,)))


class _Diffusers(nn.Module):
    """diffusers' UNet2DModel of the same size, answering with a tensor instead of an object."""

    def __init__(self) -> None:
        super().__init__()
        self.network = importlib.import_module("diffusers").UNet2DModel(
            sample_size=32,
            block_out_channels=(64, 128, 128),
            layers_per_block=2,
            down_block_types=("DownBlock2D", "AttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
            attention_head_dim=128,
            dropout=0.1,
        )

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        out: Tensor = self.network(x, time, return_dict=False)[0]
        return out


def _lucidrains() -> nn.Module:
    network: nn.Module = importlib.import_module("denoising_diffusion_pytorch").Unet(
        dim=64, dim_mults=(1, 2, 2), dropout=0.1, flash_attn=True, full_attn=(False, True, False)
    )
    return network


def installed_peers() -> list[Peer]:
    """Other suites' networks, as far as the packages of the `peers` extra are installed."""
    known = [
        Peer("diffusers", _Diffusers),
        Peer("denoising_diffusion_pytorch", _lucidrains),
    ]
    return [peer for peer in known if importlib.util.find_spec(peer.name)]


def imported_peer(path: str) -> Peer:
    """A peer by its import path, `package.module:builder`; it is called after its package.

    UserError where there is no such thing.
    """
    module, _, builder = path.partition(":")
    try:
        build = getattr(importlib.import_module(module), builder)
    except (ImportError, AttributeError, ValueError) as error:
        raise UserError(
            f"no peer at {path!r} ({error}): expected package.module:function, where function() builds a "
            f"network of (x, time), and the package on PYTHONPATH"
        ) from error
    return Peer(module.partition(".")[0], build)


class _Contestant:
    """A network with its optimizer and batch, taking timed training steps."""

    def __init__(self, peer: Peer, precision: Precision, batch_size: int, device: torch.device) -> None:
        torch.manual_seed(0)
        self.name = peer.name
        self.precision = precision
        self.network = peer.build().to(device).train()
        self.optimizer = torch.optim.Adam(self.network.parameters(), lr=2e-4, fused=True)
        self.x, self.noise = torch.randn(2, batch_size, *IMAGE_SHAPE, device=device).unbind()
        self.time = torch.randint(STEPS, (batch_size,), device=device)
        self.seconds: list[float] = []

    def step(self) -> None:
        """One training step; its wall time is appended to `seconds`."""
        _wait(self.x.device)
        start = time.perf_counter()
        self.optimizer.zero_grad(set_to_none=True)
        with self.precision.context(self.x.device):
            loss = F.mse_loss(self.network(self.x, self.time).float(), self.noise)
        loss.backward()
        self.optimizer.step()
        _wait(self.x.device)
        self.seconds.append(time.perf_counter() - start)


def compare(
    peers: Sequence[Peer],
    precisions: Iterable[Precision] = (FLOAT32, BFLOAT16),
    batch_size: int = 32,
    rounds: int = 15,
    warmup: int = 2,
    device: str = "cpu",
) -> list[dict[str, Any]]:
    """Times training steps of our small U-Net and of `peers`, taking turns; one row a precision and network.

    A row has precision, name, parameters, batch_size, rounds, milliseconds {median, p20, p80} and, but for
    our own, ratio {median, p20, p80}: this network's time over ours in the same round.
    """
    rows = []
    for precision in precisions:
        contestants = [
            _Contestant(peer, precision, batch_size, torch.device(device)) for peer in (ours(), *peers)
        ]
        for turn in range(warmup + rounds):
            first = turn % len(contestants)
            for contestant in contestants[first:] + contestants[:first]:
                contestant.step()
        reference = contestants[0].seconds[warmup:]
        for contestant in contestants:
            seconds = contestant.seconds[warmup:]
            row = {
                "precision": precision.name,
                "name": contestant.name,
                "parameters": sum(
                    each.numel() for each in contestant.network.parameters() if each.requires_grad
                ),
                "batch_size": batch_size,
                "rounds": rounds,
                "milliseconds": spread([1000 * each for each in seconds]),
            }
            if contestant is not contestants[0]:
                row["ratio"] = spread(
                    [theirs / mine for theirs, mine in zip(seconds, reference, strict=True)]
                )
            rows.append(row)
    return rows


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median, 20th and 80th percentile of at least two values."""
    fifths = statistics.quantiles(values, n=5, method="inclusive")
    return {"median": statistics.median(values), "p20": fifths[0], "p80": fifths[3]}


def _wait(device: torch.device) -> None:
    """Until the device has done what was asked of it."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
