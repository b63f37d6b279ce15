"""Which hidden pixels are shown first: the network's confidence decides (MaskGIT, Chang et al. 2022)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from genbench.contracts import Law, Posterior, Rule, UserError
from genbench.corruptions.masking import HIDDEN, Counted, Mask, ranked, reached
from genbench.corruptions.tokens import values
from genbench.ops.categorical import categorical
from genbench.ops.combine import expand
from genbench.ops.random import Randomness, Stream


@dataclass(frozen=True)
class Decoded:
    """The law of x_s where hidden pixels are drawn and all but the floor(s N) least confident ones stay."""

    x_t: Tensor
    hidden: Tensor
    laws: Tensor
    s: Tensor
    noise: Tensor

    @property
    def mean(self) -> Tensor:
        """The most probable levels."""
        return torch.where(self.hidden, values(self.laws.argmax(dim=-1), self.laws.shape[-1]), self.x_t)

    def sample(self, randomness: Randomness, step: int) -> Tensor:
        shape = self.x_t.shape[1:]
        level, order = randomness.uniform((2, *shape), step, Stream.STEP).unbind(dim=1)
        grey = categorical(self.laws, level, ~self.hidden)
        chances = self.laws.gather(-1, grey[..., None])[..., 0]
        gumbel = -torch.log(-torch.log(order.double()))
        confidence = chances.double().clamp(min=1e-30).log() + expand(self.noise, gumbel) * gumbel
        # What is shown has the last ranks, and is never hidden again.
        hidden = reached(ranked(torch.where(self.hidden, confidence, torch.inf)), self.s)
        shown = torch.where(self.hidden, values(grey, self.laws.shape[-1]).to(self.x_t.dtype), self.x_t)
        return shown.masked_fill(hidden & self.hidden, HIDDEN)


@dataclass(frozen=True)
class Confident(Rule):
    """Draws every hidden pixel and keeps those with the largest log-probability plus noise.

    temperature: of the Gumbel noise at t = 1, falling to 0 with t; where it is large the order is random, as
    under the bridge. With few steps and little noise, images are likelier and more alike than the data.
    """

    temperature: float = 4.5

    def check(self, corruption: Any, s: Tensor, t: Tensor) -> None:
        cells = corruption.order if isinstance(corruption, Mask) else None
        if not isinstance(cells, Counted) or cells.patch > 1 or cells.shared:
            raise UserError(
                "rule=confident shows single pixels of corruption=mask, so many at a time, and this model's "
                "corruption is another. Type rule=bridge or rule=fresh."
            )

    def check_estimate(self, x0: Posterior) -> None:
        super().check_estimate(x0)
        if x0.logits is None:
            raise UserError(
                "rule=confident compares the laws of pixels. Type draw=mean estimator=categorical."
            )

    def law(self, corruption: Mask, x_t: Tensor, x0: Posterior, s: Tensor, t: Tensor) -> Law:
        assert x0.logits is not None
        hidden = ~corruption.known(x_t)
        return Decoded(x_t, hidden, x0.logits.softmax(dim=-1), s, self.temperature * t)
