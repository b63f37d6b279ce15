"""The nouns of genbench: what a generator, a corruption, a sampler and their values are.

    data x0 --corruption--> x_t --denoiser--> Posterior over x0 --sampler--> x_s (s < t) ... --> image

A *generator* is what is trained: it declares its training phases and the harness owns the loop. It offers
one of three capabilities (`Decodes`, `Denoises`, `Energy`) and a *sampler* needs one of them. A *corruption*
says how an image is destroyed over time t in [0, 1], t = 0 being data. Everything else in the package is
an implementation of a noun on this page; nothing in the harness asks which one it has.

Images are float32 NCHW in [-1, 1] inside generators and samplers, uint8 NCHW in data and metrics.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from genbench.errors import UserError as UserError
from genbench.ops.combine import Term, tensor
from genbench.ops.random import Randomness

# --------------------------------------------------------------------------------------------- training


@dataclass(frozen=True)
class Batch:
    """One batch of training data on the device.

    images: float32 [B, C, H, W] in [-1, 1]; labels: int64 [B] in [0, classes) or None; index: int64 [B],
    the positions of the images in the data set.
    """

    images: Tensor
    labels: Tensor | None
    index: Tensor


@dataclass(frozen=True)
class Step:
    """Where training stands: `index` counts optimiser steps from 0, `total` is `trainer.steps`."""

    index: int
    total: int


@dataclass(frozen=True)
class Losses:
    """What a phase minimises (`total`, a scalar) and named scalars for the log."""

    total: Tensor
    parts: Mapping[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class Phase:
    """One optimisation inside a training step: `loss` is minimised over `params`; everything else is frozen.

    `name` is the optimizer's and the log's name. A phase with `repeats` > 1 takes that many optimiser steps
    in a row, each on a fresh batch (a GAN's critic steps).
    """

    name: str
    params: nn.Module
    loss: Callable[[Batch, Step], Losses]
    repeats: int = 1


@dataclass(frozen=True)
class Together:
    """Phases whose gradients are all taken at the same weights and on the same batch, then all stepped.

    This is the simultaneous gradient step of f-GAN's Algorithm 1 (Nowozin et al. 2016).
    """

    phases: Sequence[Phase]


class Generator(nn.Module, ABC):
    """What is trained. Subclasses set `image_shape` (C, H, W) and implement one capability below."""

    image_shape: tuple[int, int, int]

    @abstractmethod
    def phases(self) -> Sequence[Phase | Together]:
        """What is optimised in each training step, in order."""


# ----------------------------------------------------------------------------------------- capabilities


@runtime_checkable
class Decodes(Protocol):
    """A generator of one step: latent noise in, image out (GANs, autoencoders, hierarchical VAEs)."""

    image_shape: tuple[int, int, int]
    latent_shapes: Sequence[tuple[int, ...]]

    def decode(
        self, latents: Sequence[Tensor], labels: Tensor | None = None, temperature: float = 1.0
    ) -> Tensor:
        """Images [B, C, H, W] from standard normal `latents`, one [B, *shape] for each of `latent_shapes`.

        The model scales its latents by `temperature`: a hierarchical one scales each group's own deviation.
        """


@runtime_checkable
class Autoencodes(Decodes, Protocol):
    """A decoder with an encoder beside it, so that a prior can be fitted to the codes of real images."""

    def encode(
        self, images: Tensor, labels: Tensor | None = None, randomness: Randomness | None = None
    ) -> Sequence[Tensor]:
        """Codes of images [B, C, H, W], one [B, *shape] for each of `latent_shapes`.

        With `randomness` one draw of what the decoder is given in training, else its mean.
        """


@runtime_checkable
class Denoises(Protocol):
    """A generator that undoes a corruption: x_t and t in, a posterior over x0 out."""

    image_shape: tuple[int, int, int]
    corruption: Corruption

    def denoise(self, x_t: Tensor, t: Tensor, labels: Tensor | None = None) -> Posterior:
        """The posterior over x0 given x_t [B, ...] at times t (shape [] or [B], in (0, 1]).

        `labels` is int64 [B]; -1 stands for "no label" and is what guidance contrasts with.
        """


@runtime_checkable
class Energy(Protocol):
    """A generator known by an energy: x [B, C, H, W] in, energies [B] out (lower is likelier)."""

    image_shape: tuple[int, int, int]

    def energy(self, x: Tensor) -> Tensor:
        """Energies [B] in nats, up to a constant."""


@runtime_checkable
class ClassConditional(Protocol):
    """Optional: a generator that can be told a class, int64 in [0, classes)."""

    classes: int


@runtime_checkable
class Renormalises(Protocol):
    """Optional: a decoder whose batch normalisation is estimated anew before sampling.

    In training its networks see batch statistics of weights that are then averaged or moved on; samplers
    of one step measure the statistics again, on latents of their own.
    """

    def renormalised(self) -> nn.Module:
        """The network whose batch statistics these are."""


@runtime_checkable
class Illustrates(Protocol):
    """Optional: a generator that has more to show than samples, such as reconstructions."""

    def illustrate(self, images: Tensor, labels: Tensor | None = None) -> Mapping[str, Picture]:
        """Pictures by name, made of a few unseen images [B, C, H, W] in [-1, 1]."""


@runtime_checkable
class Pretrained(Protocol):
    """Optional: a generator that comes with its weights, and is sampled and scored without training."""

    weights_sha256: str
    """Of all that its answers depend on; it stands in the record as `model.sha256`."""


# ------------------------------------------------------------------------------------- values on the way

Noise = Any  # what a corruption draws once per trajectory: a tensor, or a structure of tensors of its own


@dataclass(frozen=True)
class Posterior:
    """What a denoiser knows about x0 given x_t.

    estimate: the mean of x0, [B, C, H, W] in [-1, 1], or the Combination that it is, so that a sampler's step
    works it out on its way and not before; `mean` is its values. logits: [B, C, H, W, V] where pixels are
    categorical; variance: of x0 given x_t per pixel, broadcastable to the mean, where it is known; share: in
    [0, 1], what Improved DDPM learns of the reverse step's variance, which is no variance of x0; earlier:
    what inverse heat dissipation knows instead of x0, the mean of the image degraded one step less (its
    `mean` is the same, for want of better).
    """

    estimate: Term
    logits: Tensor | None = None
    variance: Tensor | None = None
    share: Tensor | None = None
    earlier: Tensor | None = None

    @property
    def mean(self) -> Tensor:
        """The values of `estimate`."""
        return tensor(self.estimate)


@dataclass(frozen=True)
class Picture:
    """Images to look at together: float32 [N, C, H, W] in [-1, 1], laid out in rows of `columns`."""

    images: Tensor
    columns: int


class Law(Protocol):
    """The law of x_s given x_t and an estimate of x0: a Gaussian, a Dirac, a categorical, or its own."""

    @property
    def mean(self) -> Tensor:
        """The law's mean (for a categorical law its mode)."""

    def sample(self, randomness: Randomness, step: int) -> Tensor:
        """One draw; `step` separates the draws of one trajectory from each other."""


@dataclass(frozen=True)
class Level:
    """A time and what a Gaussian corruption is there: float64 tensors of shape [] or [B].

    alpha, sigma: signal and noise; alpha_rate, sigma_rate: their derivatives in t.
    """

    t: Tensor
    alpha: Tensor
    sigma: Tensor
    alpha_rate: Tensor
    sigma_rate: Tensor

    def keeping(self, later: Level, replaced: Tensor) -> tuple[Tensor, Tensor]:
        """(k, c) of a step from `later` to here, alpha x0 + sqrt(sigma^2 - replaced^2) eps = k x_t + c x0.

        eps is the noise in x_t, all but `replaced` (a standard deviation) of which is kept.
        """
        kept = (self.sigma**2 - replaced**2).clamp(min=0).sqrt() / later.sigma
        return kept, self.alpha - kept * later.alpha


class Rule(ABC):
    """How x_s follows from x_t and an estimate of x0: the three rules of unified diffusion, and others."""

    def check(self, corruption: Corruption, s: Tensor, t: Tensor) -> None:
        """Raises UserError where the rule needs what `corruption` has not, at its first step from t to s."""
        return None

    def check_estimate(self, x0: Posterior) -> None:
        """Raises UserError where the rule needs to know more than such an estimate says."""
        if x0.earlier is not None:
            raise UserError(
                f"The rule {self} needs an estimate of x0, and a model of inverse heat makes one of the "
                "image a step less degraded. Type sampler=ihdm."
            )

    @abstractmethod
    def law(self, corruption: Any, x_t: Tensor, x0: Posterior, s: Tensor, t: Tensor) -> Law:
        """p(x_s | x_t, x0) for s < t."""


class Corruption(ABC):
    """How an image is destroyed over time. Times are float64 tensors of shape [] or [B] in [0, 1]."""

    invertible_in_noise: bool
    """Can the noise in x_t be told from (x_t, x0), so that it may be kept?"""

    gaussian_noise: bool = False
    """Is the noise Gaussian, so that a mixture of two draws is a draw again?"""

    steps: int | None
    """T where time is discrete (t = i / T), None where it is continuous."""

    @property
    def bridges(self) -> bool:
        """Has this corruption a `bridge`?"""
        return self.invertible_in_noise

    @abstractmethod
    def draw(self, shape: Sequence[int], randomness: Randomness) -> Noise:
        """The noise of one trajectory for images of `shape` [B, C, H, W]; drawn once."""

    @abstractmethod
    def apply(self, x0: Tensor, noise: Noise, t: Tensor) -> Tensor:
        """x_t = F_t(x0, noise), deterministic; x0 itself at t = 0."""

    @abstractmethod
    def renoised(self, x_t: Tensor, x0: Posterior, s: Tensor, t: Tensor, fresh: float) -> Law:
        """The law of F_s(x0, sqrt(1 - fresh^2) n + fresh z), n being the noise in x_t and z a new draw.

        fresh = 1 is a new trajectory (always valid), 0 the same one, which needs `invertible_in_noise`, and
        between the two needs `gaussian_noise` too (kexue.fm 9262, 9271: rules 1, 2 and 3).
        """

    def bridge(self, x_t: Tensor, x0: Posterior, s: Tensor, t: Tensor) -> Law:
        """The law of x_s given x_t and x0 on one trajectory: F_s(x0, n), n drawn from p(n | x_t, x0).

        Chains of grey levels average it over a posterior's logits; others take its mean, which a draw of x0
        should stand in for. Of noise that x_t and x0 tell it is `renoised` with nothing fresh; the rest,
        whose `bridges` says so, do it in their own way.
        """
        return self.renoised(x_t, x0, s, t, 0.0)

    @abstractmethod
    def terminal(self, shape: Sequence[int], randomness: Randomness, fitted: Fitted) -> Tensor:
        """x at t = 1, where sampling starts."""

    def check_shape(self, shape: Sequence[int]) -> None:
        """Raises UserError where images of `shape` [C, H, W] cannot be destroyed so; all can by default."""
        return None

    def known(self, x_t: Tensor) -> Tensor | None:
        """Where x_t is x0 itself for certain, bool of x_t's shape; None where that is never so."""
        return None

    @abstractmethod
    def draw_times(self, count: int, device: torch.device) -> Tensor:
        """`count` training times from torch's global generator, float64 [count]."""

    @abstractmethod
    def conditioning(self, t: Tensor) -> Tensor:
        """What networks are told of time t, float32, of t's shape."""

    def fit(self, batches: Iterable[Batch], randomness: Randomness) -> Fitted:
        """What the law at t = 1 must learn of the training data; nothing by default."""
        return {}

    def placeholder(self, shape: Sequence[int]) -> Fitted:
        """Tensors such as `fit` returns for images of `shape` [C, H, W], made without data."""
        return {}


# ---------------------------------------------------------------------------------------------- sampling

Fitted = Mapping[str, Tensor]
"""Named tensors a sampler learnt from training data after training; empty for most."""


@dataclass(frozen=True)
class Samples:
    """images: float32 [B, C, H, W] in [-1, 1] (not clipped); nfe: network evaluations spent on each, [B]."""

    images: Tensor
    nfe: Tensor


class Sampler(ABC):
    """Draws images from a model that has the capability `needs`.

    Image i depends on its key alone, never on the batch it is in: no sampler averages over a batch.
    """

    needs: ClassVar[type]

    def check(self, model: Any) -> None:
        """Raises UserError, saying why, where this sampler cannot drive `model`. Called before training."""
        return None

    def evaluations(self) -> int | None:
        """Network evaluations an image will take, where known in advance; for estimates of time only."""
        return None

    def fit(self, model: Generator, batches: Iterable[Batch], randomness: Randomness) -> Fitted:
        """What must be learnt from training data before sampling; nothing by default."""
        return {}

    def placeholder(self, model: Any) -> Fitted:
        """Tensors such as `fit` returns, made without data: sampling is timed with them before training."""
        return {}

    @abstractmethod
    def __call__(
        self,
        model: Any,
        randomness: Randomness,
        labels: Tensor | None = None,
        fitted: Fitted | None = None,
    ) -> Samples:
        """One image for every key of `randomness`."""
