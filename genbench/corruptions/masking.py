"""Masks: pixels disappear one after the other, in an order drawn once for each image.

A pixel is hidden from its threshold on: x_t is x_0 where the threshold is above t, and `HIDDEN` elsewhere.
Thresholds in (0, 1] make the masks of one trajectory nested, and all is hidden at t = 1. Going back, a bridge
keeps what x_t shows and reveals some of the rest (kexue.fm 9271; the absorbing chain of D3PM and MD4's masks
are those of `Independent` order).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from genbench.contracts import Fitted, Law, Noise, Posterior, Rule, UserError
from genbench.corruptions.clock import Timed
from genbench.corruptions.tokens import surprise, tokens
from genbench.ops.combine import expand
from genbench.ops.random import Randomness, Stream

HIDDEN = -2.0
"""What a hidden pixel is, outside of all grey levels."""


class Order(ABC):
    """The law of thresholds. A cell of `patch` x `patch` pixels, of all channels if `shared`, has one."""

    bridges = True

    def __init__(self, patch: int = 1, shared: bool = False) -> None:
        if not isinstance(patch, int) or patch < 1:
            raise UserError(f"corruption.order.patch={patch}: type the side of a patch in pixels, from 1 up.")
        self.patch, self.shared = patch, shared

    def cells(self, pixels: Tensor) -> Tensor:
        """One value a cell, [B, 1 or C, h, w], of [B, C, H, W] that are constant in cells."""
        return pixels[:, : 1 if self.shared else None, :: self.patch, :: self.patch]

    def spread(self, cells: Tensor, shape: Sequence[int]) -> Tensor:
        """The inverse of `cells`: [B, C, H, W]."""
        tall = cells.repeat_interleave(self.patch, dim=-2)[..., : shape[-2], :]
        return tall.repeat_interleave(self.patch, dim=-1)[..., : shape[-1]].expand(shape)

    def draw(self, uniform: Tensor) -> Tensor:
        """Thresholds in (0, 1], one a pixel, from uniforms [B, C, H, W]."""
        return self.spread(self.thresholds(self.cells(uniform)), uniform.shape)

    def hides(self, thresholds: Tensor, t: Tensor) -> Tensor:
        """Where pixels of `thresholds` [B, ...] are hidden at t, [] or [B]: nowhere at 0, everywhere at 1."""
        return reached(thresholds, t)

    def remain(self, hidden: Tensor, s: Tensor, t: Tensor, uniform: Tensor) -> Tensor:
        """Which of the pixels hidden at t are so at s < t too, one draw given `hidden`, bool [B, C, H, W]."""
        left = self.remaining(self.cells(hidden), s, t, self.cells(uniform))
        return self.spread(left, hidden.shape)

    @abstractmethod
    def thresholds(self, uniform: Tensor) -> Tensor:
        """Of cells."""

    def remaining(self, hidden: Tensor, s: Tensor, t: Tensor, uniform: Tensor) -> Tensor:
        """`remain`, of cells."""
        raise UserError("Masks in this order know no bridge. Type rule=fresh.")

    def check_bound(self, steps: int | None) -> None:
        """Raises UserError where `rate` is unknown."""
        raise UserError(
            "Masks in this order have no bound of the likelihood. Type corruption=mask_independent."
        )

    def rate(self, t: Tensor, steps: int | None, cells: int) -> Tensor:
        """At what rate in t each cell hidden at t is shown, of `cells` in all: (its chance by t - 1/T) T."""
        raise NotImplementedError


class Independent(Order):
    """Every cell by itself: hidden at t with probability t."""

    def thresholds(self, uniform: Tensor) -> Tensor:
        return uniform

    def hides(self, thresholds: Tensor, t: Tensor) -> Tensor:
        # Not to be rounded as ranks are: near t = 0 a millionth is much.
        return thresholds < expand(t, thresholds)

    def remaining(self, hidden: Tensor, s: Tensor, t: Tensor, uniform: Tensor) -> Tensor:
        return hidden & (uniform < expand(s / t, uniform))

    def check_bound(self, steps: int | None) -> None:
        return None

    def rate(self, t: Tensor, steps: int | None, cells: int) -> Tensor:
        return 1 / t


class Counted(Order):
    """A random order of the N cells: exactly floor(t N) are hidden at t."""

    def thresholds(self, uniform: Tensor) -> Tensor:
        return ranked(uniform)

    def remaining(self, hidden: Tensor, s: Tensor, t: Tensor, uniform: Tensor) -> Tensor:
        # Those that stay hidden are a random choice among the hidden; the shown come last.
        return ranked(torch.where(hidden, uniform, 2.0)) <= expand(s, uniform) + ROUNDING

    def check_bound(self, steps: int | None) -> None:
        if steps is None:
            # All is hidden at t = 1 alone, which has no share in an integral over t.
            raise UserError(
                "Masks in counted order have a bound of the likelihood in discrete times. "
                "Type corruption.steps= and the number of pixels, or corruption=mask_independent."
            )

    def rate(self, t: Tensor, steps: int | None, cells: int) -> Tensor:
        assert steps is not None
        now, then = (((time + ROUNDING) * cells).floor() for time in (t, t - 1 / steps))
        return steps * (now - then) / now.clamp(min=1)


class Growing(Order):
    """A hole that grows from a random cell until it is all: inpainting. Where it began is not told."""

    bridges = False

    def thresholds(self, uniform: Tensor) -> Tensor:
        height, width = uniform.shape[-2:]
        flat = uniform.flatten(1).double()
        place = flat[:, 0] * (height * width)
        centre = place.long()
        rows = torch.arange(height, device=uniform.device)[:, None] - (centre // width)[:, None, None, None]
        columns = torch.arange(width, device=uniform.device) - (centre % width)[:, None, None, None]
        # Uniforms settle which of the cells at one distance goes first. Of the first cell's, which chose the
        # centre, the digits are taken that did not.
        ties = torch.cat((place.frac()[:, None], flat[:, 1:]), dim=1).reshape(uniform.shape)
        return ranked(rows.square() + columns.square() + 0.5 * ties)


ROUNDING = 1e-6
"""Below one part in any number of cells, above the rounding of float32."""


def ranked(keys: Tensor) -> Tensor:
    """The rank of each number among those of its image, from 1 / N to 1, in the shape of `keys`.

    Equal numbers are ranked in the order of their places, on any device.
    """
    flat = keys.flatten(1)
    rank = flat.argsort(dim=1, stable=True).argsort(dim=1) + 1
    return (rank / flat.shape[1]).reshape(keys.shape)


def reached(thresholds: Tensor, t: Tensor) -> Tensor:
    """Where ranks [B, ...] are at most t, [] or [B], which reaches none at 0; rounding forgiven."""
    return thresholds <= expand(t, thresholds) + ROUNDING * (expand(t, thresholds) > 0)


def _shown(x0: Tensor) -> Tensor:
    """x0 in [-1, 1]: an estimate of less than -1.5 would pass for a hidden pixel."""
    return x0.clamp(-1, 1)


@dataclass(frozen=True)
class Revealed:
    """The law of x0 behind a random mask; hidden: uniforms [B, C, H, W] -> bool, what is hidden."""

    x0: Tensor
    hidden: Callable[[Tensor], Tensor]

    @property
    def mean(self) -> Tensor:
        """x0, without a mask: a mask has no mean."""
        return self.x0

    def sample(self, randomness: Randomness, step: int) -> Tensor:
        uniform = randomness.uniform(self.x0.shape[1:], step, Stream.STEP)
        return self.x0.masked_fill(self.hidden(uniform), HIDDEN)


class Mask(Timed):
    """order: which pixels go first; steps: see `Timed`."""

    def __init__(self, order: Order, steps: int | None = None) -> None:
        super().__init__(steps)
        self.order = order

    @property
    def bridges(self) -> bool:
        return self.order.bridges

    def check_shape(self, shape: Sequence[int]) -> None:
        patch, side = self.order.patch, min(shape[-2:])
        if patch > side:
            raise UserError(
                f"corruption.order.patch={patch} is larger than images of {shape[-2]} x {shape[-1]} pixels. "
                f"Type corruption.order.patch={max(1, side // 2)}, or less."
            )

    def draw(self, shape: Sequence[int], randomness: Randomness) -> Tensor:
        return self.order.draw(randomness.uniform(shape[1:], stream=Stream.NOISE))

    def apply(self, x0: Tensor, noise: Noise, t: Tensor) -> Tensor:
        return _shown(x0).masked_fill(self.order.hides(noise, t), HIDDEN)

    def known(self, x_t: Tensor) -> Tensor:
        return x_t > (HIDDEN - 1) / 2

    def bridge(self, x_t: Tensor, x0: Posterior, s: Tensor, t: Tensor) -> Law:
        """Some hidden pixels are revealed, with x0's values; of a drawn x0, or they all are means."""
        hidden = ~self.known(x_t)
        filled = torch.where(hidden, _shown(x0.mean), x_t)
        return Revealed(filled, lambda uniform: self.order.remain(hidden, s, t, uniform))

    def check_bound(self) -> None:
        """Raises UserError where there is no `bound`."""
        self.order.check_bound(self.steps)

    def bound(self, x0: Tensor, x0_hat: Posterior, x_t: Tensor, t: Tensor, rule: Rule) -> Tensor:
        """-log p(x0 | x_t) of the hidden times the rate at which they are revealed, nats for every pixel.

        Its mean over evenly drawn times and masks bounds -log p(x0). In independent order the rate is 1 / t,
        whether time is discrete or not (Shi et al. 2024, eq. 5). `rule` is the bridge.
        """
        assert x0_hat.logits is not None
        nats = surprise(x0_hat.logits, tokens(x0, x0_hat.logits.shape[-1]))
        rate = self.order.rate(t, self.steps, self.order.cells(x0)[0].numel())
        return torch.where(self.known(x_t), 0.0, expand(rate, nats) * nats)

    def prior(self, x0: Tensor) -> Tensor:
        """Nothing is left at t = 1."""
        return torch.zeros_like(x0)

    def terminal(self, shape: Sequence[int], randomness: Randomness, fitted: Fitted) -> Tensor:
        return torch.full(tuple(shape), HIDDEN, device=randomness.device)
