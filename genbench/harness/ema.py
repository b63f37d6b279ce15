"""Exponential moving averages of weights, which is what diffusion models are sampled with.

    average <- m average + (1 - m) weights          after every optimiser step

The decay m comes from a rule: fixed (Ho et al. 2020), warmed up (TensorFlow; Song et al. 2021), or a
half-life counted in images and therefore independent of the batch size (Karras et al. 2020, 2022). An average
starts as a copy of the weights, so a decay of .9999 needs some 10^5 steps to forget the initialisation; the
two other rules forget it early.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from genbench.contracts import UserError


class DecayRule(Protocol):
    """How much of the average is kept at a step."""

    def decay(self, step: int, images_seen: int, batch_size: int) -> float:
        """m in [0, 1] for the update after step `step`.

        step: counted from 0; images_seen: training images seen before this step's batch; batch_size: images
        in this step's batch, over all ranks.
        """


@dataclass(frozen=True)
class FixedDecay:
    """m = value, always: .9999 for DDPM (Ho et al. 2020), .999 for NCSNv2 (Song & Ermon 2020)."""

    value: float

    def __post_init__(self) -> None:
        _check_decay(self.value)

    def decay(self, step: int, images_seen: int, batch_size: int) -> float:
        return self.value


@dataclass(frozen=True)
class WarmedUp:
    """m = min(limit, (1 + n) / (10 + n)) at step n: reaches .999 at n = 8,990 and .9999 at n = 89,990."""

    limit: float

    def __post_init__(self) -> None:
        _check_decay(self.limit)

    def decay(self, step: int, images_seen: int, batch_size: int) -> float:
        return min(self.limit, (1 + step) / (10 + step))


@dataclass(frozen=True)
class HalfLife:
    """m = 0.5^(B / H): weights lose half their influence every H = `images` training images.

    While training is young, H = min(images, ramp * images seen), so that the average is never older than a
    fraction of the training; `ramp` None leaves this out. EDM: 500,000 images, ramp .05 (Karras et al. 2022).
    """

    images: float
    ramp: float | None = 0.05

    def __post_init__(self) -> None:
        if self.images <= 0 or (self.ramp is not None and self.ramp <= 0):
            raise UserError(
                f"a half-life needs images > 0 and ramp > 0 (or none), found images={self.images}, "
                f"ramp={self.ramp}"
            )

    def decay(self, step: int, images_seen: int, batch_size: int) -> float:
        half_life = self.images if self.ramp is None else min(self.images, self.ramp * images_seen)
        return 0.5 ** (batch_size / half_life) if half_life > 0 else 0.0


def _check_decay(value: float) -> None:
    if not 0 <= value <= 1:
        raise UserError(f"a decay is what is kept of the average, in [0, 1] (such as 0.9999), found {value}")


class Average:
    """The moving average of a module's weights, as a module of its own.

    `module` is a deep copy in evaluation mode that needs no gradient; sample with it. Parameters are averaged
    in their own dtype, float32 or wider (UserError otherwise), or increments of 1e-4 would be lost. Buffers,
    such as the statistics and counters of batch normalisation, are copied.
    """

    def __init__(self, module: nn.Module, decay_rule: DecayRule) -> None:
        if narrow := {str(parameter.dtype) for parameter in module.parameters() if parameter.itemsize < 4}:
            raise UserError(
                f"weights to be averaged are {', '.join(sorted(narrow))}, expected float32: keep them so and "
                f"let autocast lower the precision of the computation"
            )
        self.decay_rule = decay_rule
        self.source = module
        self.module = copy.deepcopy(module).eval().requires_grad_(False)

    @torch.no_grad()
    def update(self, step: int, images_seen: int, batch_size: int) -> None:
        """Moves the average towards the weights as they are after `step`; arguments as in `DecayRule`."""
        decay = self.decay_rule.decay(step, images_seen, batch_size)
        averaged: list[Tensor] = list(self.module.parameters())
        weights: list[Tensor] = list(self.source.parameters())
        torch._foreach_lerp_(averaged, weights, 1.0 - decay)
        if buffers := list(self.module.buffers()):
            torch._foreach_copy_(buffers, list(self.source.buffers()))

    def state_dict(self) -> dict[str, Tensor]:
        """The average's tensors by name; the rule has no state."""
        return self.module.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores what `state_dict` gave; raises RuntimeError where names or shapes differ."""
        self.module.load_state_dict(state)
