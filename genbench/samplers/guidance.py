"""The estimate move: a posterior over x0 at (x_t, t), guided and clipped.

Classifier-free guidance (Ho & Salimans 2022) in the convention eps = (1 + w) eps(y) - w eps(no label): w = 0
is the conditional model, w = -1 the unconditional one. All of eps, v and x0 being affine in each other, the
same weights apply to x0.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from genbench.contracts import ClassConditional, Posterior, UserError
from genbench.corruptions.tokens import expectation
from genbench.ops.combine import ONE, Term, clamped, linear, tensor
from genbench.ops.quantile import magnitude
from genbench.samplers.counting import Counted


class Threshold(ABC):
    """How an estimate of x0 is kept in [-1, 1]."""

    @abstractmethod
    def __call__(self, x0: Term) -> Term:
        """[B, C, H, W], each image on its own."""


class Free(Threshold):
    """Not at all, as in DDIM's code."""

    def __call__(self, x0: Term) -> Term:
        return x0


class Static(Threshold):
    """What is beyond is cut, as DDPM's code does before it forms the posterior's mean."""

    def __call__(self, x0: Term) -> Term:
        return clamped(x0, ONE)


class Dynamic(Threshold):
    """Cut at s and divided by s, the larger of 1 and a quantile of the pixels' sizes |x0_hat| in each image.

    With strong guidance many pixels are beyond, and cutting them all saturates the image (Saharia et al.
    2022, section 2.3; of their quantile they say only that it is high). share: which quantile.
    """

    def __init__(self, share: float = 0.995) -> None:
        if not 0 < share <= 1:
            raise UserError(f"sampler.clip.share={share}: expected a share of the pixels above 0, at most 1.")
        self.share = share

    def __call__(self, x0: Term) -> Term:
        values = tensor(x0)
        size = magnitude(values, self.share).clamp(min=1).double()
        return clamped(linear((1 / size,), (values,)), ONE)


Clip = bool | str | Threshold
"""What a `clip` may be: true and false, "dynamic", or a Threshold of one's own."""

CLIPS: dict[bool | str, Threshold] = {False: Free(), True: Static(), "dynamic": Dynamic()}


def threshold(clip: Clip) -> Threshold:
    """The Threshold that `clip` names; UserError where it names none."""
    if isinstance(clip, Threshold):
        return clip
    if clip not in CLIPS:
        raise UserError(f"clip={clip}: expected true, false or dynamic.")
    return CLIPS[clip]


@dataclass(frozen=True)
class Estimate:
    """How x0 is estimated: `guidance` is w above, `clip` what keeps the mean in [-1, 1]."""

    clip: Clip = True
    guidance: float = 0.0

    def __post_init__(self) -> None:
        threshold(self.clip)

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
        return replace(posterior, estimate=threshold(self.clip)(posterior.estimate))

    def _guided(self, given: Posterior, unconditional: Posterior) -> Posterior:
        """The weights above on the mean, on logits (whose mean it then is), and on a less degraded image."""

        def mix(with_label: Tensor, without: Tensor | None) -> Tensor:
            assert without is not None
            return torch.lerp(without, with_label, 1 + self.guidance)

        if given.logits is not None:
            logits = mix(given.logits, unconditional.logits)
            return replace(given, estimate=expectation(logits).to(given.mean.dtype), logits=logits)
        weights = torch.tensor([1 + self.guidance, -self.guidance], dtype=torch.float64).unbind()
        estimate = linear(weights, (given.estimate, unconditional.estimate))
        earlier = None if given.earlier is None else mix(given.earlier, unconditional.earlier)
        return replace(given, estimate=estimate, earlier=earlier)
