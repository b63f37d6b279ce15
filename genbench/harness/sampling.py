"""Drawing images from a trained model: any number, in chunks, the same whatever the chunks or ranks.

Image i depends on (evaluation seed, i) alone. A rank draws the images rank, rank + world, rank + 2 world, ...
No collective happens inside the loop, so ranks may have different numbers of chunks.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from genbench.contracts import ClassConditional, Fitted, Generator, Sampler, Samples
from genbench.harness.distributed import Ranks
from genbench.harness.inference import Inference
from genbench.ops.quantize import pixels
from genbench.ops.random import Keys, Stream


@dataclass(frozen=True)
class Drawn:
    """A chunk of samples: index int64 [B], images uint8 [B, C, H, W], nfe int64 [B], labels int64 [B]."""

    index: Tensor
    images: Tensor
    nfe: Tensor
    labels: Tensor | None


@dataclass(frozen=True)
class Source:
    """A model and how it is sampled."""

    model: Generator
    sampler: Sampler
    fitted: Fitted
    batch_size: int
    device: torch.device
    ranks: Ranks = Ranks()  # noqa: RUF009 - immutable
    inference: Inference = field(default_factory=Inference)

    def alone(self) -> Source:
        """The same source drawn by this rank only: all the images, and no peers."""
        return replace(self, ranks=Ranks())

    def draw(self, count: int, seed: int) -> Iterator[Drawn]:
        """This rank's share of images 0 ... count - 1 under an evaluation seed, in order."""
        share = torch.arange(self.ranks.rank, count, self.ranks.world, device=self.device)
        for index in share.split(self.batch_size):
            yield self.draw_images(index, seed)

    @torch.inference_mode()
    def draw_images(self, index: Tensor, seed: int) -> Drawn:
        """The images with the given numbers, int64 [B]; classes are drawn uniformly, by number."""
        self.model.eval()
        keys = Keys(index, seed)
        labels = None
        if isinstance(self.model, ClassConditional) and self.model.classes:
            labels = keys.integers(self.model.classes, Stream.LABEL)
        with self.inference.of(self.model):
            samples = self._walked(index, labels, seed)
        # In memory as they will be stored, and as extractors read them: the channels of a pixel side by side.
        return Drawn(index.cpu(), pixels(samples.images).permute(0, 3, 1, 2), samples.nfe, labels)

    def _walked(self, index: Tensor, labels: Tensor | None, seed: int) -> Samples:
        walk = lambda index, labels: self.sampler(self.model, Keys(index, seed), labels, self.fitted)
        if (trajectories := self.inference.trajectories) is None:
            return walk(index, labels)
        return trajectories.draw(walk, seed, (self.model, self.sampler, self.fitted), index, labels)
