"""The classifier as something the ordinary trainer trains: the first half of a feature extractor.

A classifier draws no images; it is a `Generator` only in that it declares a training phase, so that the
extractors genbench ships are made by the same loop, averaging and schedules as everything else. Its loss is

    E_x,y  CE(logits(augment(x)), (1 - l) onehot(y) + l / K)

with l the label smoothing (Szegedy et al. 2016, section 7) and K the number of classes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from genbench.contracts import Batch, Generator, Losses, Phase, Step, UserError
from genbench.metrics.augmentation import Chain
from genbench.networks.classifier import ConvClassifier


class Classifier(Generator):
    """A `ConvClassifier` with its loss.

    image_shape: (C, H, W); classes: number of labels, at least 2; widths, strides, blocks: see
    `ConvClassifier`; augmentations: applied in turn to training images, float [B, C, H, W] in [-1, 1] to
    the same shape; label_smoothing: l above, in [0, 1). Raises UserError for a data set without labels.
    """

    def __init__(
        self,
        image_shape: Sequence[int],
        classes: int,
        widths: Sequence[int],
        strides: Sequence[int],
        blocks: Sequence[int],
        augmentations: Sequence[Callable[[Tensor], Tensor]] = (),
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__()
        if classes < 2:
            raise UserError(
                f"a classifier needs a labelled data set of at least 2 classes, found classes={classes}; "
                "choose dataset=digits, mnist, fashion_mnist or cifar10"
            )
        channels, height, width = image_shape
        self.image_shape = (channels, height, width)
        self.architecture: dict[str, Any] = {
            "channels": channels,
            "classes": classes,
            "widths": list(widths),
            "strides": list(strides),
            "blocks": list(blocks),
        }
        """The arguments of `ConvClassifier`: what a shipped extractor's card repeats, to rebuild it."""
        # In channels-last order convolutions in bfloat16 run several times faster on a CPU.
        self.network = ConvClassifier(**self.architecture).to(memory_format=torch.channels_last)
        self.augment = Chain(augmentations)
        self.label_smoothing = label_smoothing

    def phases(self) -> Sequence[Phase]:
        return [Phase("classifier", self.network, self.loss)]

    def loss(self, batch: Batch, step: Step) -> Losses:
        """Smoothed cross-entropy in nats; and the share of the augmented batch that is classified rightly."""
        if batch.labels is None:
            raise UserError("a classifier needs labels, and this data set has none; choose a labelled one")
        _, logits = self.network(self.augment(batch.images))
        logits = logits.float()
        total = F.cross_entropy(logits, batch.labels, label_smoothing=self.label_smoothing)
        accuracy = (logits.detach().argmax(dim=1) == batch.labels).float().mean()
        return Losses(total, {"accuracy": accuracy})
