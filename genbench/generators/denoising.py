"""Denoising generators: a network that undoes Gaussian corruption, trained by regression.

    L = E_{t, x0, eps} w(t) || target - network(c x_t, t) ||^2 / D,     x_t = alpha_t x0 + sigma_t eps

(Ho et al. 2020, eq. 14), with the mean over the D dimensions of an image. DDPM, NCSN, score SDEs, EDM and
flow matching are choices of schedule, of what the output stands for, and of the weight w.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from genbench.contracts import Batch, Generator, Level, Losses, Phase, Posterior, Step
from genbench.corruptions.gaussian import Gaussian
from genbench.generators.parameterisations import Parameterisation
from genbench.generators.weightings import Flat, Weighting
from genbench.likelihood.dequantisation import dequantised
from genbench.ops.combine import combine
from genbench.ops.random import Ambient


@dataclass(frozen=True)
class Corrupted:
    """A training batch: images before and after corruption, its level, the network's output, the target."""

    x0: Tensor
    x_t: Tensor
    level: Level
    output: Tensor
    target: Tensor


class Denoising(Generator):
    """A denoiser of Gaussian corruption.

    network: (x [B, C, H, W], time [B], labels [B] or None) -> [B, C, H, W]; classes: 0 for an unconditional
    model; label_dropout: share of training labels replaced by "no label" (-1), so that guidance has
    something to contrast with; weighting: w above, `Flat` unless given; augment: images in [-1, 1] ->
    (images, labels [B, 9]) that the network is told as `augment`; levels: the number V of grey levels where
    training images are to be dequantised by uniform noise within their level, so that the model has a density
    (see `genbench.likelihood`), or None.
    """

    def __init__(
        self,
        network: nn.Module,
        corruption: Gaussian,
        parameterisation: Parameterisation,
        image_shape: Sequence[int],
        classes: int = 0,
        label_dropout: float = 0.1,
        weighting: Weighting | None = None,
        augment: Callable[[Tensor], tuple[Tensor, Tensor]] | None = None,
        levels: int | None = None,
    ) -> None:
        super().__init__()
        self.network = network
        self.corruption = corruption
        self.parameterisation = parameterisation
        channels, height, width = image_shape
        self.image_shape = (channels, height, width)
        self.classes = classes
        self.label_dropout = label_dropout
        self.weighting = weighting or Flat()
        self.augment = augment
        self.levels = levels

    def phases(self) -> Sequence[Phase]:
        return [Phase("denoiser", self.network, self.loss)]

    def loss(self, batch: Batch, step: Step) -> Losses:
        """The loss above at times drawn by the schedule; Gaussian noise from torch's generators."""
        trial = self.corrupted(batch)
        errors = (trial.output - trial.target).square().flatten(1).mean(dim=1)
        weights = self.weighting(trial.level, self.parameterisation)
        return Losses((weights.to(errors.dtype) * errors).mean())

    def corrupted(self, batch: Batch) -> Corrupted:
        """A batch corrupted at random times, and what the network makes of it."""
        x0, told = batch.images, {}
        ambient = Ambient(len(x0), x0.device)
        if self.levels is not None:
            x0 = dequantised(x0, self.levels, ambient)
        if self.augment is not None:
            x0, told["augment"] = self.augment(x0)
        t = self.corruption.draw_times(len(x0), x0.device)
        level = self.corruption.level(t)
        noise = self.corruption.draw(x0.shape, ambient)
        x_t = self.corruption.apply(x0, noise, t)
        output = self._evaluate(x_t, t, self._training_labels(batch.labels, ambient), **told).float()
        target = self.parameterisation.target(x0, noise, level.alpha, level.sigma)
        return Corrupted(x0, x_t, level, output, target)

    def denoise(self, x_t: Tensor, t: Tensor, labels: Tensor | None = None) -> Posterior:
        output = self._evaluate(x_t, t, labels).to(x_t.dtype)
        alpha, sigma = self.corruption.alpha(t), self.corruption.sigma(t)
        return Posterior(self.parameterisation.x0(output, x_t, alpha, sigma))

    def _evaluate(self, x_t: Tensor, t: Tensor, labels: Tensor | None, **told: Tensor) -> Tensor:
        time = self.corruption.conditioning(t).to(x_t.device).expand(len(x_t))
        scale = self.parameterisation.scale(self.corruption.alpha(t), self.corruption.sigma(t))
        seen = x_t if scale is None else combine((scale,), (x_t,))
        return self.network(seen, time, labels if self.classes else None, **told)

    def _training_labels(self, labels: Tensor | None, ambient: Ambient) -> Tensor | None:
        if not self.classes or labels is None:
            return None
        dropped = ambient.uniform(()) < self.label_dropout
        return torch.where(dropped, torch.full_like(labels, -1), labels)
