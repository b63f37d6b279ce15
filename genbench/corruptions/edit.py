"""Edits: pixels replaced, one after the other, by a different grey level (kexue.fm 9271).

At t exactly floor(t N) of the N pixels differ from x0. Which ones, x_t and x0 tell, so that a step back
undoes some of them. At t = 1 every pixel differs: its law at each place is (1 - p(v)) / (V - 1), p being that
of x0.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from genbench.contracts import Batch, Fitted, Noise, Posterior, UserError
from genbench.corruptions.chains import Discrete
from genbench.corruptions.masking import Counted, reached
from genbench.corruptions.tokens import drawn_alike, probabilities, tokens, values
from genbench.ops.categorical import categorical
from genbench.ops.random import Randomness, Stream

ORDER = Counted()
FREQUENCIES = "terminal_frequencies"


@dataclass(frozen=True)
class Undone:
    """The law of x_s between x_t and an estimate of x0, which is first made to differ in the right number.

    Every pixel is given a level other than its own, drawn from the estimate; those floor(t N) for which the
    estimate speaks most for another level are taken as edited, and all but floor(s N) of them undone.
    """

    x_t: Tensor
    estimate: Tensor
    s: Tensor
    t: Tensor

    @property
    def mean(self) -> Tensor:
        """The most probable levels."""
        return values(self.estimate.argmax(dim=-1), self.estimate.shape[-1])

    def sample(self, randomness: Randomness, step: int) -> Tensor:
        shape, levels = self.x_t.shape[1:], self.estimate.shape[-1]
        level, tie, left = randomness.uniform((3, *shape), step, Stream.STEP).unbind(dim=1)
        current = tokens(self.x_t, levels)
        kept = self.estimate.gather(-1, current[..., None])[..., 0]
        # Held above zero, so that there is always another level to draw.
        others = (self.estimate + 1e-12).scatter_(-1, current[..., None], 0.0)
        new = values(categorical(others, level), levels)
        surprise = others.sum(dim=-1).log() - kept.clamp(min=1e-12).log()
        # Certain estimates are all as surprising; the first pixels must not be taken for it.
        edited = reached(ORDER.thresholds(1e-4 * tie - surprise), self.t)
        undone = edited & ~ORDER.remain(edited, self.s, self.t, left)
        return torch.where(undone, new.to(self.x_t.dtype), self.x_t)


class Edit(Discrete):
    """levels: V, above 2, because of two levels the other one says all."""

    bridges = True

    def __init__(self, levels: int, steps: int | None = None) -> None:
        super().__init__(levels, steps)
        if levels < 3:
            raise UserError(f"corruption=edit with {levels} grey levels: expected 3 or more.")

    def draw(self, shape: Sequence[int], randomness: Randomness) -> tuple[Tensor, Tensor]:
        """Thresholds and, in (0, 1), which of the other levels: [B, C, H, W] each."""
        order, other = randomness.uniform((2, *shape[1:]), stream=Stream.NOISE).unbind(dim=1)
        return ORDER.thresholds(order), other

    def apply(self, x0: Tensor, noise: Noise, t: Tensor) -> Tensor:
        thresholds, other = noise
        grey = tokens(x0, self.levels)
        moved = (grey + 1 + (other * (self.levels - 1)).long()) % self.levels
        return torch.where(reached(thresholds, t), values(moved, self.levels), x0)

    def bridge(self, x_t: Tensor, x0: Posterior, s: Tensor, t: Tensor) -> Undone:
        return Undone(x_t, probabilities(x0, self.levels), s, t)

    def fit(self, batches: Iterable[Batch], randomness: Randomness) -> Fitted:
        """How often each level stands at each place, over 5,000 images: [C, H, W, V]."""
        count, total = 0, torch.zeros(())
        for batch in batches:
            grey = tokens(batch.images, self.levels).movedim(0, -1)
            if not count:
                total = torch.zeros(*grey.shape[:-1], self.levels, device=grey.device)
            total.scatter_add_(-1, grey, torch.ones((), device=grey.device).expand(grey.shape))
            count += len(batch.images)
            if count >= 5000:
                break
        return {FREQUENCIES: total / count}

    def placeholder(self, shape: Sequence[int]) -> Fitted:
        return {FREQUENCIES: torch.full((*shape, self.levels), 1 / self.levels)}

    def terminal(self, shape: Sequence[int], randomness: Randomness, fitted: Fitted) -> Tensor:
        if FREQUENCIES not in fitted:
            raise ValueError("the law of edited images has not been fitted")
        uniform = randomness.uniform(shape[1:], stream=Stream.TERMINAL)
        return values(drawn_alike(1 - fitted[FREQUENCIES], uniform), self.levels)
