"""Training batches as a function of their number: exact, resumable, the same for any number of ranks.

Training reads one endless sequence of positions p = 0, 1, 2, ...: the concatenation of one random permutation
of the N images an epoch. Position p stands in epoch e = p div N, at place i = p mod N, and

    image(p) = permutation_e[i],      flipped(p) = coin_e[i],

where permutation_e and coin_e come from CPU generators seeded by hashes of (seed, "order", e) and (seed,
"flip", e). Batch k of B images is the positions [kB, (k+1)B), and rank r of R takes the r-th of R equal parts
of it. Nothing is remembered from batch to batch, so resuming means asking for the next number.
"""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor

from genbench.contracts import Batch, UserError
from genbench.data.images import ImageSet


class Batches:
    """Batches of an ImageSet, made on the device it lives on.

    batch_size: the global batch, divided among `world` ranks; seed: the training seed; flip: whether images
    are mirrored left to right with probability 1/2. Raises UserError where `world` does not divide the batch
    size.
    """

    def __init__(
        self, images: ImageSet, batch_size: int, seed: int, flip: bool, rank: int = 0, world: int = 1
    ) -> None:
        if batch_size < 1 or batch_size % world:
            raise UserError(
                f"trainer.batch_size={batch_size} cannot be shared by {world} ranks: it is the batch of all "
                f"ranks together and must be a positive multiple of {world}; "
                f"type trainer.batch_size={max(1, round(batch_size / world)) * world}."
            )
        if not 0 <= rank < world:
            raise ValueError(f"rank {rank} is not in [0, {world})")
        if len(images) == 0:
            raise UserError(
                f"The {images.split} split of {images.name} holds no images; training needs some."
            )
        self._set = images
        self._batch_size = batch_size
        self._share = batch_size // world
        self._rank = rank
        self._seed = seed
        self._flip = flip
        # Tables of the two epochs last used: a batch may span two, and on a GPU the copy is paid once an
        # epoch.
        self._epochs: dict[int, tuple[Tensor, Tensor]] = {}
        self._columns = torch.arange(images.images.shape[-1], device=images.images.device)

    def __call__(self, number: int) -> Batch:
        """This rank's share of batch `number` (0, 1, 2, ...): B / world images in [-1, 1]."""
        if number < 0:
            raise ValueError(f"batches are numbered from 0, not {number}")
        start = number * self._batch_size + self._rank * self._share
        index, flipped = self._positions(start, start + self._share)
        pixels = self._set.images.index_select(0, index)
        if self._flip:
            pixels = self._mirror(pixels, flipped)
        labels = None if self._set.labels is None else self._set.labels.index_select(0, index)
        return Batch(images=pixels.float().div_(127.5).sub_(1.0), labels=labels, index=index)

    def _positions(self, start: int, stop: int) -> tuple[Tensor, Tensor]:
        """image(p) (int64) and flipped(p) (bool) for start <= p < stop."""
        size = len(self._set)
        parts = []
        for epoch in range(start // size, (stop - 1) // size + 1):
            first, last = max(start - epoch * size, 0), min(stop - epoch * size, size)
            parts.append([table[first:last] for table in self._epoch(epoch)])
        order, coins = zip(*parts, strict=True)
        return torch.cat(order), torch.cat(coins)

    def _epoch(self, epoch: int) -> tuple[Tensor, Tensor]:
        """permutation_e (int64 [N]) and coin_e (bool [N]) on the device of the images."""
        if epoch not in self._epochs:
            size, device = len(self._set), self._set.images.device
            order = torch.randperm(size, generator=self._generator("order", epoch))
            coins = torch.randint(2, (size,), generator=self._generator("flip", epoch)).bool()
            while len(self._epochs) >= 2:
                del self._epochs[next(iter(self._epochs))]
            self._epochs[epoch] = (order.to(device, non_blocking=True), coins.to(device, non_blocking=True))
        return self._epochs[epoch]

    def _generator(self, purpose: str, epoch: int) -> torch.Generator:
        """A generator seeded by (seed, purpose, epoch), on the CPU whatever the device, so that all agree."""
        digest = hashlib.sha256(f"{self._seed}/{purpose}/{epoch}".encode()).digest()
        return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)

    def _mirror(self, pixels: Tensor, flipped: Tensor) -> Tensor:
        """The images marked in `flipped` mirrored left to right.

        One gather along the width: half as much again as fast as choosing between the batch and its mirror
        image, and unlike indexing by the mask it does not make the CPU wait for a GPU.
        """
        columns = torch.where(flipped[:, None], len(self._columns) - 1 - self._columns, self._columns)
        return pixels.gather(3, columns[:, None, None, :].expand(pixels.shape))
