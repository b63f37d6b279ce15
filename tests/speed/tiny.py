"""The network of comparisons in miniature, and a bench without other suites."""

from __future__ import annotations

import functools

import pytest
import torch

from genbench.networks.unet import UNet
from genbench.speed import networks, sampling, training, training_step
from genbench.speed.bench import Bench
from genbench.speed.turns import Clock

CPU = torch.device("cpu")


def bench(rounds: int = 2) -> Bench:
    return Bench(Clock(CPU, rounds, warmup=0), compile=False)


def network(side: int = 32, channels: int = 8) -> UNet:
    return UNet(
        (3, side, side), channels=channels, multipliers=(1, 1), blocks=1, attention=(side // 2,), groups=4
    )


def install(patch: pytest.MonkeyPatch) -> None:
    """Replaces the small U-Net everywhere, and makes every other suite absent."""
    for module in (networks, sampling, training):
        patch.setattr(module, "small_unet", network)
    patch.setattr(training_step.networks, "small_unet", network)
    patch.setattr(Bench, "peer", lambda self, name: self.leave_out(f"{name} is not at hand"))


def alone(package: str) -> functools.partial:
    """`pytest.importorskip` with what to type."""
    return pytest.importorskip(package, reason=f"{package} is not installed (the extra `peers`)")
