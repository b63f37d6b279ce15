"""What a rule is given of an estimate: its mean, or a draw of x0 from it.

With draws from the true posterior any number of steps is exact, under any rule that keeps (*) of
`corruptions.condition`; with means only the limit of many steps is (kexue.fm 9262).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from genbench.contracts import Batch, Fitted, Posterior, UserError
from genbench.corruptions.tokens import tokens, values
from genbench.ops.categorical import categorical_of_logits
from genbench.ops.random import Randomness, Stream
from genbench.samplers.measuring import estimates


class Draw(ABC):
    """A view of an estimate."""

    @abstractmethod
    def __call__(self, x0: Posterior, randomness: Randomness, step: int, fitted: Fitted) -> Posterior:
        """What the rule is given in the `step`-th step."""

    def given(self, estimate: Posterior) -> Posterior:
        """The kind of posterior that a rule will be given of such an estimate.

        Raises UserError where this cannot be had of it.
        """
        if estimate.earlier is not None:
            raise UserError("A model of inverse heat estimates no x0 that could be drawn. Type draw=mean.")
        return Posterior(estimate.mean)

    def fit(self, model: Any, times: Tensor, batches: Iterable[Batch], randomness: Randomness) -> Fitted:
        """What must be learnt from training data at the grid's times [steps]; nothing by default."""
        return {}

    def placeholder(self, model: Any, steps: int) -> Fitted:
        """Tensors such as `fit` returns."""
        return {}


class Mean(Draw):
    """The estimate as it is; rules take its mean, or all of it where they can."""

    def given(self, estimate: Posterior) -> Posterior:
        return estimate

    def __call__(self, x0: Posterior, randomness: Randomness, step: int, fitted: Fitted) -> Posterior:
        return x0


class Apart(Draw):
    """One draw of every pixel by itself, from its logits or a Gaussian of its known variance.

    temperature: logits are divided by it, standard deviations multiplied; below 1 for likelier pixels.
    """

    def __init__(self, temperature: float = 1.0) -> None:
        if temperature <= 0:
            raise UserError(f"draw.temperature={temperature}: expected a number above 0; draw=mean for none.")
        self.temperature = temperature

    def given(self, estimate: Posterior) -> Posterior:
        if estimate.logits is None and estimate.variance is None:
            raise UserError(
                "This model's estimate is a mean without a variance. Type draw=mean or draw=normal."
            )
        return super().given(estimate)

    def __call__(self, x0: Posterior, randomness: Randomness, step: int, fitted: Fitted) -> Posterior:
        shape = x0.mean.shape[1:]
        if x0.logits is not None:
            uniform = randomness.uniform(shape, step, Stream.ESTIMATE)
            return _levels(x0, x0.logits, uniform, self.temperature)
        assert x0.variance is not None
        noise = randomness.normal(shape, step, Stream.ESTIMATE).to(x0.mean.dtype)
        return Posterior(x0.mean + self.temperature * x0.variance.sqrt().to(noise.dtype) * noise)


SCALES = "draw_scales"


class Scaled(Draw):
    """The mean and noise of one scale, measured at each time on `images` training images.

    The unified diffusion model's heads: a network trained on the squared error alone is given its variance,
    and one trained on the absolute error its spread, after training (kexue.fm 9262; under Gaussian corruption
    the first is Analytic-DPM's variance).
    """

    def __init__(self, images: int = 1000) -> None:
        self.images = images

    def given(self, estimate: Posterior) -> Posterior:
        if estimate.logits is not None:
            raise UserError(
                "This model's estimate is a law of grey levels, which noise added to its mean would leave. "
                "Type draw=apart or draw=mean."
            )
        return super().given(estimate)

    @abstractmethod
    def scale(self, errors: Tensor) -> Tensor:
        """What is averaged over pixels, from errors float64."""

    @abstractmethod
    def noise(self, scale: Tensor, uniform: Tensor) -> Tensor:
        """Noise of that scale from uniforms, float64 [B, ...]."""

    @torch.inference_mode()
    def fit(self, model: Any, times: Tensor, batches: Iterable[Batch], randomness: Randomness) -> Fitted:
        """`draw_scales`, float64 [steps]."""
        total = torch.zeros(len(times), dtype=torch.float64)
        seen = torch.zeros(len(times), dtype=torch.float64)
        for step, x0, estimate in estimates(model, times, batches, randomness, self.images):
            errors = estimate.mean.double() - x0.double()
            total[step] += self.scale(errors).flatten(1).mean(dim=1).sum().cpu()
            seen[step] += len(x0)
        return {SCALES: total / seen}

    def placeholder(self, model: Any, steps: int) -> Fitted:
        return {SCALES: torch.zeros(steps, dtype=torch.float64)}

    def __call__(self, x0: Posterior, randomness: Randomness, step: int, fitted: Fitted) -> Posterior:
        if SCALES not in fitted:
            raise ValueError(f"{type(self).__name__} was given no fitted scales; call fit before sampling")
        uniform = randomness.uniform(x0.mean.shape[1:], step, Stream.ESTIMATE).double()
        noise = self.noise(fitted[SCALES][step], uniform)
        return Posterior(x0.mean + noise.to(x0.mean.dtype))


class Normal(Scaled):
    """Gaussian noise whose variance is the mean squared error."""

    def scale(self, errors: Tensor) -> Tensor:
        return errors.square()

    def noise(self, scale: Tensor, uniform: Tensor) -> Tensor:
        return scale.sqrt() * torch.special.ndtri(uniform)


class Laplace(Scaled):
    """Laplace noise whose mean size is the mean absolute error, for networks trained on that."""

    def scale(self, errors: Tensor) -> Tensor:
        return errors.abs()

    def noise(self, scale: Tensor, uniform: Tensor) -> Tensor:
        centred = uniform - 0.5
        return -scale * centred.sign() * torch.log1p(-2 * centred.abs())


FACTORS = "draw_factors"
LARGEST = 1024
"""Pixels times channels, beyond which the correlations of all pairs at every time are too much to keep."""


class Together(Draw):
    """Grey levels drawn with the dependence between pixels that the network's separate laws leave open.

    A Gaussian copula: with u the place of a pixel in its law, uniform if the law is right, the correlations
    of z = Phi^-1(u) are measured on `images` training images at each time, and a draw takes u = Phi(z) with z
    of these correlations. Every pixel keeps its law.
    """

    def __init__(self, images: int = 2000) -> None:
        self.images = images

    def given(self, estimate: Posterior) -> Posterior:
        size = estimate.mean[0].numel()
        if size > LARGEST:
            raise UserError(
                f"draw=together keeps the correlations of all pairs of pixels, of {LARGEST} at most; images "
                f"here have {size}. Type draw=apart."
            )
        _logits(estimate)
        return super().given(estimate)

    @torch.inference_mode()
    def fit(self, model: Any, times: Tensor, batches: Iterable[Batch], randomness: Randomness) -> Fitted:
        """`draw_factors`, float32 [steps, D, D]: Cholesky factors of the correlations."""
        size = math.prod(model.image_shape)
        total = torch.zeros(len(times), size, size, dtype=torch.float64)
        for step, x0, estimate in estimates(model, times, batches, randomness, self.images):
            scores = _normal_scores(estimate, x0, randomness)
            total[step] += (scores.T @ scores).cpu()
        scale = total.diagonal(dim1=1, dim2=2).sqrt()
        correlation = total / scale[:, None] / scale[:, :, None]
        factors = torch.linalg.cholesky(correlation + 1e-6 * torch.eye(size, dtype=torch.float64))
        return {FACTORS: factors.float()}

    def placeholder(self, model: Any, steps: int) -> Fitted:
        size = math.prod(model.image_shape)
        return {FACTORS: torch.eye(size).expand(steps, size, size)}

    def __call__(self, x0: Posterior, randomness: Randomness, step: int, fitted: Fitted) -> Posterior:
        if FACTORS not in fitted:
            raise ValueError("Together was given no fitted correlations; call fit before sampling")
        factor = fitted[FACTORS][step].double()
        normals = randomness.normal((len(factor),), step, Stream.ESTIMATE).double()
        # In float64 a row of the product does not depend on how many rows there are, to float32's last digit.
        uniform = torch.special.ndtr(normals @ factor.T).reshape(x0.mean.shape)
        return _levels(x0, _logits(x0), uniform)


def _levels(x0: Posterior, logits: Tensor, uniform: Tensor, temperature: float = 1.0) -> Posterior:
    grey = categorical_of_logits(logits, uniform, temperature)
    return Posterior(values(grey, logits.shape[-1]).to(x0.mean.dtype))


def _logits(x0: Posterior) -> Tensor:
    if x0.logits is None:
        raise UserError("draw=together draws from laws of grey levels. Type estimator=categorical.")
    return x0.logits


def _normal_scores(estimate: Posterior, x0: Tensor, randomness: Randomness) -> Tensor:
    """z of x0 under the estimate, float64 [B, D]; within a level's share of the law, u is drawn evenly."""
    laws = _logits(estimate).double().softmax(dim=-1)
    ends = laws.cumsum(dim=-1)
    grey = tokens(x0, laws.shape[-1])[..., None]
    upper, share = ends.gather(-1, grey)[..., 0], laws.gather(-1, grey)[..., 0]
    u = upper - share * randomness.uniform(x0.shape[1:]).double()
    return torch.special.ndtri(u.clamp(1e-6, 1 - 1e-6)).flatten(1)
