"""How the networks of a model are evaluated while images are drawn: how precisely, compiled, replayed.

The arithmetic of samplers and corruptions stays what it is, in float32 with coefficients of float64; where
networks are compiled for a CPU updates with noise are as well; on a GPU they are kernels anyway. To the
harness a model's networks are its children; what is exchanged is their `forward`, so that whoever holds a
network still holds the same one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from genbench.harness.graphs import Recorder, Replayed
from genbench.harness.trajectories import Trajectories
from genbench.ops.compiled import compiling

Evaluate = Callable[..., Tensor]


def compile_networks(model: nn.Module, mode: str | None = None) -> None:
    """Has torch.compile make the networks of `model`, in place; mode: one of torch.compile's."""
    for network in model.children():
        network.forward = torch.compile(network.forward, mode=mode)  # type: ignore[method-assign]


class Inference:
    """Evaluates networks as they are, unless told otherwise.

    device: where they are; autocast: the type that they compute in instead of that of their weights;
    compile: whether torch.compile makes them, and on a CPU updates with noise; recorder: what repeats
    them without Python, such as CUDA graphs; trajectories: what repeats all of a sampler's steps. Compiled
    code and graphs live as long as this does, and see weights that change in place.
    """

    def __init__(
        self,
        device: torch.device | None = None,
        autocast: torch.dtype | None = None,
        compile: bool = False,
        recorder: Recorder | None = None,
        trajectories: Trajectories | None = None,
    ) -> None:
        self.device = device or torch.device("cpu")
        self.autocast, self.compile, self.recorder = autocast, compile, recorder
        self.trajectories = trajectories
        self._made: dict[nn.Module, Evaluate] = {}

    @contextmanager
    def of(self, model: nn.Module) -> Iterator[None]:
        """Within, `model` has its networks evaluated so; afterwards it is what it was."""
        if not (self.autocast or self.compile or self.recorder):
            yield
            return
        networks = list(model.children())
        before = [vars(network).get("forward") for network in networks]
        for network in networks:
            network.forward = self._forward(network)  # type: ignore[method-assign]
        steps = compiling() if self.compile and self.device.type == "cpu" else nullcontext()
        try:
            with steps:
                yield
        finally:
            for network, forward in zip(networks, before, strict=True):
                if forward is None:
                    del network.forward
                else:
                    network.forward = forward

    def _forward(self, network: nn.Module) -> Evaluate:
        if network not in self._made:
            self._made[network] = self._make(network.forward)
        return self._made[network]

    def _make(self, plain: Evaluate) -> Evaluate:
        evaluate = torch.compile(plain) if self.compile else plain
        if self.autocast is not None:
            evaluate = self._narrow(evaluate)
        if self.recorder is not None:
            evaluate = Replayed(evaluate, self.recorder)

        def forward(*inputs: Any, **named: Any) -> Tensor:
            # Samplers of energies take gradients, of the network as it is: see `ops.gradients`.
            return (plain if torch.is_grad_enabled() else evaluate)(*inputs, **named)

        return forward

    def _narrow(self, evaluate: Evaluate) -> Evaluate:
        def narrow(*inputs: Any, **named: Any) -> Tensor:
            # Weights that a cache of autocast's kept from a recording would be gone with it.
            with torch.autocast(self.device.type, self.autocast, cache_enabled=False):
                return evaluate(*inputs, **named)

        return narrow
