"""Bits per dimension of models of grey levels: the corruption's own bound, at times spread over [0, 1].

-log2 p(x0) / D  <=  E_t [ bound(t) ] + prior
"""

from __future__ import annotations

import math
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from genbench.contracts import Posterior, Rule, UserError
from genbench.corruptions.rules import Bridge
from genbench.ops.random import Randomness, Stream


@runtime_checkable
class Bounds(Protocol):
    """A corruption of grey levels under which -log p(x0) has a bound."""

    def check_bound(self) -> None:
        """Raises UserError where there is none after all."""

    def bound(self, x0: Tensor, x0_hat: Posterior, x_t: Tensor, t: Tensor, rule: Rule) -> Tensor:
        """Its density at times t [B], nats for every pixel of x0 [B, C, H, W]."""

    def prior(self, x0: Tensor) -> Tensor:
        """What is not of any time, likewise."""


class CategoricalBound:
    """evaluations: times an image is corrupted to, one in each of so many equal parts of [0, 1].

    A bound for any number of them, whose noise falls with it; rule: the model's step, as in sampling; the
    bridge where not given.
    """

    name = "bpd_bound"

    def __init__(self, rule: Rule | None = None, evaluations: int = 100) -> None:
        self.rule, self.evaluations = rule or Bridge(), evaluations

    def check(self, model: Any) -> None:
        """Raises UserError where the model is not one of grey levels, or has no bound."""
        corruption = getattr(model, "corruption", None)
        if not isinstance(corruption, Bounds):
            raise UserError(
                "likelihood=categorical is a bound of models of grey levels, and this is none. "
                "Type likelihood=ode or likelihood=bound."
            )
        corruption.check_bound()
        if steps := model.corruption.steps:
            one = torch.ones((), dtype=torch.float64)
            self.rule.check(model.corruption, one - 1 / steps, one)

    def __call__(self, model: Any, images: Tensor, levels: int, randomness: Randomness) -> Tensor:
        """The bound in bits per dimension, float64 [B], of images [B, C, H, W] at their grey levels."""
        corruption = model.corruption
        total = corruption.prior(images).double().flatten(1).mean(dim=1)
        noise = corruption.draw(images.shape, randomness)
        place = randomness.uniform((), stream=Stream.PROBE).double()
        for number in range(self.evaluations):
            t = (number + place) / self.evaluations
            if corruption.steps is not None:
                t = (t * corruption.steps).ceil() / corruption.steps
            x_t = corruption.apply(images, noise, t)
            posterior = model.denoise(x_t, t)
            if posterior.logits is None or posterior.logits.shape[-1] != levels:
                raise UserError(
                    f"the model says nothing of the {levels} grey levels. Type estimator=categorical."
                )
            nats = corruption.bound(images, posterior, x_t, t, self.rule)
            total += nats.double().flatten(1).mean(dim=1) / self.evaluations
        return total / math.log(2)
