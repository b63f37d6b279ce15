"""The estimate move: a posterior over x0 at (x_t, t), guided and clipped.

Classifier-free guidance (Ho & Salimans 2022) in the convention eps = (1 + w) eps(y) - w eps(no label): w = 0
is the conditional model, w = -1 the unconditional one. All of eps, v and x0 being affine in each other, the
same weights apply to x0.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from genbench.contracts import ClassConditional, Posterior, UserError
from genbench.corruptions.tokens import expectation
from genbench.samplers.counting import Counted


@dataclass(frozen=True)
class Estimate:
    """How x0 is estimated: `guidance` is w above, `clip` whether the mean is kept in [-1, 1].

    DDPM's code clips before forming the posterior's mean; DDIM's code does not clip.
    """

    clip: bool = True
    guidance: float = 0.0

    def check(self, model: Any) -> None:
        """Raises UserError where guidance is asked of a model without classes."""
        if self.guidance and not (isinstance(model, ClassConditional) and model.classes):
            raise UserError(
                f"sampler.guidance={self.guidance} needs a class-conditional model, and this one knows no "
                "classes. Train with conditional=true, or leave sampler.guidance=0."
            )

    def __call__(
        self, model: Counted, x_t: Tensor, t: Tensor, labels: Tensor | None, rows: Tensor | None = None
    ) -> Posterior:
        """The posterior at x_t [B, ...], t [] or [B]; one evaluation, or two under guidance.

        rows: which images of the batch these are (see `Counted`); None for all.
        """
        posterior = model.denoise(x_t, t, labels, rows)
        if self.guidance and labels is not None:
            unconditional = model.denoise(x_t, t, torch.full_like(labels, -1), rows)
            posterior = self._guided(posterior, unconditional)
        return replace(posterior, mean=posterior.mean.clamp(-1, 1)) if self.clip else posterior

    def _guided(self, given: Posterior, unconditional: Posterior) -> Posterior:
        """The weights above on the mean, on logits (whose mean it then is), and on a less degraded image."""

        def mix(with_label: Tensor, without: Tensor | None) -> Tensor:
            assert without is not None
            return torch.lerp(without, with_label, 1 + self.guidance)

        if given.logits is not None:
            logits = mix(given.logits, unconditional.logits)
            return replace(given, mean=expectation(logits).to(given.mean.dtype), logits=logits)
        mean = mix(given.mean, unconditional.mean)
        earlier = None if given.earlier is None else mix(given.earlier, unconditional.earlier)
        return replace(given, mean=mean, earlier=earlier)
