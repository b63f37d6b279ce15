"""Batch statistics for sampling: measured anew, kept by name, and put in place for the time of sampling.

In training a generator's batch normalisation sees the batch's own mean and variance; its running averages
belong to weights that have moved on, and under an average of weights to none at all. A sampler therefore
passes latents through the final weights once and takes the mean of the statistics of those batches.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from genbench.contracts import Fitted

BUFFERS = ("running_mean", "running_var")


def batch_norms(network: nn.Module) -> dict[str, _BatchNorm]:
    """The batch normalisations that keep running statistics, by name."""
    return {
        name: module
        for name, module in network.named_modules()
        if isinstance(module, _BatchNorm) and module.track_running_stats
    }


@torch.no_grad()
def measure(network: nn.Module, batches: int, evaluate: Callable[[int], object]) -> Fitted:
    """Mean statistics over evaluate(0) ... evaluate(batches - 1), which run `network`; it stays as it was.

    Layers see batch statistics meanwhile, as in training. Returns "<layer>.running_mean" and
    "<layer>.running_var", float32, of the layers that were run.
    """
    norms = batch_norms(network)
    before = {
        name: {key: value.clone() for key, value in norm.state_dict().items()} for name, norm in norms.items()
    }
    settings = {name: (norm.momentum, norm.training) for name, norm in norms.items()}
    found: dict[str, Tensor] = {}
    try:
        for norm in norms.values():
            norm.reset_running_stats()
            norm.momentum, norm.training = None, True  # None: the plain mean over batches
        for batch in range(batches):
            evaluate(batch)
        for name, norm in norms.items():
            if norm.num_batches_tracked:
                found |= {_key(name, buffer): getattr(norm, buffer).clone() for buffer in BUFFERS}
    finally:
        for name, norm in norms.items():
            norm.load_state_dict(before[name])
            norm.momentum, norm.training = settings[name]
    return found


@contextmanager
def using(network: nn.Module, fitted: Fitted) -> Iterator[None]:
    """Runs with the statistics of `measure` in place of the network's own."""
    norms = batch_norms(network)
    chosen = {key: value for key, value in fitted.items() if key.endswith(BUFFERS)}
    before = {key: _buffer(norms, key).clone() for key in chosen}
    try:
        for key, value in chosen.items():
            _buffer(norms, key).copy_(value)
        yield
    finally:
        for key, value in before.items():
            _buffer(norms, key).copy_(value)


def _key(layer: str, buffer: str) -> str:
    """The buffer's name; a network that is itself one normalisation has no layers to name."""
    return f"{layer}.{buffer}" if layer else buffer


def _buffer(norms: dict[str, _BatchNorm], key: str) -> Tensor:
    layer, _, buffer = key.rpartition(".")
    return getattr(norms[layer], buffer)
