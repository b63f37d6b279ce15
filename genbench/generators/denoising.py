"""Denoising generators: a network that undoes Gaussian corruption, trained by regression.

    L_simple = E_{t, x0, eps} || target - network(alpha_t x0 + sigma_t eps, t) ||^2 / D

(Ho et al. 2020, eq. 14), with the mean over the D dimensions of an image. DDPM is the noise parameterisation
with the linear schedule; other parameterisations and schedules are other objects in the same class.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from genbench.contracts import Batch, Generator, Losses, Phase, Posterior, Step
from genbench.corruptions.gaussian import Gaussian
from genbench.generators.parameterisations import Parameterisation
from genbench.ops.random import Ambient


class Denoising(Generator):
    """A denoiser of Gaussian corruption.

    network: (x [B, C, H, W], time [B], labels [B] or None) -> [B, C, H, W]; classes: 0 for an unconditional
    model; label_dropout: share of training labels replaced by "no label" (-1), so that guidance has
    something to contrast with.
    """

    def __init__(
        self,
        network: nn.Module,
        corruption: Gaussian,
        parameterisation: Parameterisation,
        image_shape: Sequence[int],
        classes: int = 0,
        label_dropout: float = 0.1,
    ) -> None:
        super().__init__()
        self.network = network
        self.corruption = corruption
        self.parameterisation = parameterisation
        channels, height, width = image_shape
        self.image_shape = (channels, height, width)
        self.classes = classes
        self.label_dropout = label_dropout

    def phases(self) -> Sequence[Phase]:
        return [Phase("denoiser", self.network, self.loss)]

    def loss(self, batch: Batch, step: Step) -> Losses:
        """L_simple at times drawn by the schedule; Gaussian noise from torch's generators."""
        x0 = batch.images
        ambient = Ambient(len(x0), x0.device)
        t = self.corruption.schedule.draw_times(len(x0), x0.device)
        noise = self.corruption.draw(x0.shape, ambient)
        x_t = self.corruption.apply(x0, noise, t)
        output = self._evaluate(x_t, t, self._training_labels(batch.labels, ambient))
        target = self.parameterisation.target(x0, noise, self.corruption.alpha(t), self.corruption.sigma(t))
        return Losses(nn.functional.mse_loss(output.float(), target))

    def denoise(self, x_t: Tensor, t: Tensor, labels: Tensor | None = None) -> Posterior:
        output = self._evaluate(x_t, t, labels).to(x_t.dtype)
        alpha, sigma = self.corruption.alpha(t), self.corruption.sigma(t)
        return Posterior(self.parameterisation.x0(output, x_t, alpha, sigma))

    def _evaluate(self, x_t: Tensor, t: Tensor, labels: Tensor | None) -> Tensor:
        time = self.corruption.schedule.conditioning(t).to(x_t.device).expand(len(x_t))
        return self.network(x_t, time, labels if self.classes else None)

    def _training_labels(self, labels: Tensor | None, ambient: Ambient) -> Tensor | None:
        if not self.classes or labels is None:
            return None
        dropped = ambient.uniform(()) < self.label_dropout
        return torch.where(dropped, torch.full_like(labels, -1), labels)
