"""Denoising generators: a network that undoes a corruption.

DDPM, NCSN, score SDEs, EDM and flow matching are choices of corruption, of what the output stands for, and of
how errors count; models of blur, masks and tokens are choices of the same parts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from genbench.contracts import Batch, Corruption, Generator, Losses, Phase, Posterior, Step
from genbench.generators.estimators import Estimator, Trial
from genbench.likelihood.dequantisation import dequantised
from genbench.ops.random import Ambient


class Denoising(Generator):
    """A denoiser of any corruption.

    network: (x [B, C, H, W], time [B], labels [B] or None) -> what the estimator reads; classes: 0 for an
    unconditional model; label_dropout: share of training labels replaced by "no label" (-1), so that guidance
    has something to contrast with; augment: images in [-1, 1] -> (images, labels [B, 9]) that the network is
    told as `augment`; levels: the number V of grey levels where training images are to be dequantised by
    uniform noise within their level, so that the model has a density (see `genbench.likelihood`), or None.
    """

    def __init__(
        self,
        network: nn.Module,
        corruption: Corruption,
        estimator: Estimator,
        image_shape: Sequence[int],
        classes: int = 0,
        label_dropout: float = 0.1,
        augment: Callable[[Tensor], tuple[Tensor, Tensor]] | None = None,
        levels: int | None = None,
    ) -> None:
        super().__init__()
        estimator.check(corruption)
        self.network = network
        self.corruption = corruption
        self.estimator = estimator
        corruption.check_shape(image_shape)
        channels, height, width = image_shape
        self.image_shape = (channels, height, width)
        self.classes = classes
        self.label_dropout = label_dropout
        self.augment = augment
        self.levels = levels

    def phases(self) -> Sequence[Phase]:
        return [Phase("denoiser", self.network, self.loss)]

    def loss(self, batch: Batch, step: Step) -> Losses:
        """The estimator's, at times drawn by the corruption; noise from torch's generators."""
        trial = self.trial(batch)
        with _exact(batch.images):
            return self.estimator.loss(trial, self.corruption)

    def trial(self, batch: Batch) -> Trial:
        """A batch corrupted at random times, and what the network makes of it."""
        with _exact(batch.images):
            x0, told = batch.images, {}
            ambient = Ambient(len(x0), x0.device)
            if self.levels is not None:
                x0 = dequantised(x0, self.levels, ambient)
            if self.augment is not None:
                x0, told["augment"] = self.augment(x0)
            t = self.corruption.draw_times(len(x0), x0.device)
            noise = self.corruption.draw(x0.shape, ambient)
            x_t = self.corruption.apply(x0, noise, t)
            labels = self._training_labels(batch.labels, ambient)
        return Trial(x0, noise, x_t, t, self._evaluate(x_t, t, labels, **told).float())

    def denoise(self, x_t: Tensor, t: Tensor, labels: Tensor | None = None) -> Posterior:
        output = self._evaluate(x_t, t, labels)
        with _exact(x_t):
            return self.estimator.posterior(output, x_t, t, self.corruption)

    def _evaluate(self, x_t: Tensor, t: Tensor, labels: Tensor | None, **told: Tensor) -> Tensor:
        with _exact(x_t):
            time = self.corruption.conditioning(t).to(x_t.device, non_blocking=True).expand(len(x_t))
            seen = self.estimator.seen(x_t, t, self.corruption)
        return self.network(seen, time, labels if self.classes else None, **told)

    def _training_labels(self, labels: Tensor | None, ambient: Ambient) -> Tensor | None:
        if not self.classes or labels is None:
            return None
        dropped = ambient.uniform(()) < self.label_dropout
        return torch.where(dropped, torch.full_like(labels, -1), labels)


def _exact(x: Tensor) -> torch.autocast:
    """Autocast is for the network: a corruption whose matrix products lose digits is another corruption."""
    return torch.autocast(x.device.type, enabled=False)
