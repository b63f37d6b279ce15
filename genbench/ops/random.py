"""Randomness as a function: counter-based normals and uniforms, the same for any batch size or rank count.

Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011) maps a 128-bit counter
and a 64-bit key to four 32-bit integers. An image's key is (seed, index); the counter is

    (block of four elements, step, stream, 0)

so any number can be had without drawing the ones before it, and image i never sees its batch. Integers are
exact. On a CPU normals are computed in float64 and rounded once, so that vectorised and scalar code paths of
the machine's mathematics library cannot be told apart; on a GPU in float32, in the kernel that uses them or
in one of their own, always by the same instructions: they are some 1e-6 from the CPU's.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_WEYL = (0x9E3779B9, 0xBB67AE85)
_ROUNDS = 10
_LOW = 0xFFFFFFFF


class Stream(enum.IntEnum):
    """What a draw is for. Two draws of one step differ because their streams do. Never renumber."""

    TERMINAL = 0
    ESTIMATE = 1
    STEP = 2
    CORRECTOR = 3
    DECODE = 4
    NOISE = 5
    LABEL = 6
    DEQUANTISE = 7
    PROBE = 8


@dataclass(frozen=True)
class Counter:
    """Where a draw of normals is: the images' numbers, int64 [B], and what they share.

    Lane l of block j of image i is a word of Philox with counter (j, step, stream, 0), key (index_i, seed).
    """

    index: Tensor
    seed: int
    step: int
    stream: int


class Randomness(Protocol):
    """A source of noise for B images: keyed and repeatable (`Keys`), or torch's own (`Ambient`)."""

    @property
    def batch(self) -> int:
        """B, the number of images it serves."""

    @property
    def device(self) -> torch.device:
        """Where its tensors are made."""

    def counter(self, step: int = 0, stream: Stream = Stream.NOISE) -> Counter | None:
        """What a kernel draws the same normals from by itself; None where nothing but `normal` can.

        It stands for a call of `normal`: where each call is a new draw, so is each counter.
        """

    def normal(self, shape: Sequence[int], step: int = 0, stream: Stream = Stream.NOISE) -> Tensor:
        """Standard normals, float32 of shape [B, *shape]."""

    def uniform(self, shape: Sequence[int], step: int = 0, stream: Stream = Stream.NOISE) -> Tensor:
        """Uniforms in the open interval (0, 1), float32 of shape [B, *shape]."""


def philox(counter: Sequence[Tensor], key: Sequence[Tensor]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Philox4x32-10: four words from a counter of four words and a key of two.

    All are int64 tensors (broadcastable) holding unsigned 32-bit values.
    """
    c0, c1, c2, c3, _, _ = torch.broadcast_tensors(*counter, *key)
    rounds = torch.arange(_ROUNDS, device=key[0].device)
    keys = [((word[..., None] + rounds * weyl) & _LOW).unbind(-1) for word, weyl in zip(key, _WEYL)]
    for k0, k1 in zip(*keys, strict=True):
        # A product of two unsigned words wraps round int64's sign bit and keeps all its 64 bits; the sign
        # that its high half is shifted in with is masked off last, and so is the high half of a low word.
        first, second = c0 * _MULTIPLIERS[0], c2 * _MULTIPLIERS[1]
        c0 = (second >> 32).bitwise_xor_(c1).bitwise_xor_(k0).bitwise_and_(_LOW)
        c2 = (first >> 32).bitwise_xor_(c3).bitwise_xor_(k1).bitwise_and_(_LOW)
        c1, c3 = second, first
    return c0, c1 & _LOW, c2, c3 & _LOW


@dataclass(frozen=True)
class Keys:
    """Counter-based randomness, one key an image.

    index: int64 [B], the images' numbers (each below 2^32); seed: the evaluation seed.
    """

    index: Tensor
    seed: int

    @property
    def batch(self) -> int:
        return self.index.shape[0]

    @property
    def device(self) -> torch.device:
        return self.index.device

    def counter(self, step: int = 0, stream: Stream = Stream.NOISE) -> Counter:
        return Counter(self.index, self.seed, step, int(stream))

    def words(self, count: int, step: int, stream: Stream) -> Tensor:
        """Unsigned 32-bit words in int64, [B, count]; word 4j + l is lane l of counter block j."""
        return torch.stack(self._lanes(count, step, stream), dim=-1).reshape(self.batch, -1)[:, :count]

    def _lanes(self, count: int, step: int, stream: Stream) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The four lanes, each [B, blocks], of as many blocks as hold `count` words."""
        blocks = torch.arange(-(-count // 4), device=self.device)
        constant = torch.zeros((), dtype=torch.int64, device=self.device)
        counter = (blocks, constant + step, constant + int(stream), constant)
        return philox(counter, (self.index[:, None] & _LOW, constant + (self.seed & _LOW)))

    def uniform(self, shape: Sequence[int], step: int = 0, stream: Stream = Stream.NOISE) -> Tensor:
        count = math.prod(shape)
        words = self.words(count, step, stream)
        # 23 bits and a half are exact in float32; with 24 the largest would round to 1.
        return (words >> 9).float().add_(0.5).mul_(2.0**-23).reshape(self.batch, *shape)

    def integers(self, bound: int, stream: Stream) -> Tensor:
        """One integer in [0, bound) an image, int64 [B], even to one part in 2^32."""
        return (self.words(1, 0, stream)[:, 0] * bound) >> 32

    def normal(self, shape: Sequence[int], step: int = 0, stream: Stream = Stream.NOISE) -> Tensor:
        if self.index.is_cuda:
            from genbench.ops.kernels.combine import normal

            return normal(self.counter(step, stream), shape)
        count = math.prod(shape)
        lanes = self._lanes(count, step, stream)
        normals = []
        for even in (0, 2):
            radius = lanes[even].double().add_(0.5).mul_(2.0**-32).log_().mul_(-2.0).sqrt_()
            angle = lanes[even + 1].double().add_(0.5).mul_(2.0**-32).mul_(2.0 * math.pi)
            normals += [angle.cos().mul_(radius).float(), angle.sin_().mul_(radius).float()]
        # Stacked and not written to places of one tensor, which compilers make a loop over single numbers of.
        return torch.stack(normals, dim=-1).reshape(self.batch, -1)[:, :count].reshape(self.batch, *shape)


class Successive:
    """Counter-based randomness whose every call is a new draw: for loops over batches outside training.

    batch: images it serves at once; seed: of all draws. `step` is ignored; the number of the call takes its
    place, so a repetition of the same calls repeats the draws, on any device.
    """

    def __init__(self, batch: int, seed: int, device: torch.device) -> None:
        self._keys = Keys(torch.arange(batch, device=device), seed)
        self._calls = 0

    @property
    def batch(self) -> int:
        return self._keys.batch

    @property
    def device(self) -> torch.device:
        return self._keys.device

    def counter(self, step: int = 0, stream: Stream = Stream.NOISE) -> Counter:
        self._calls += 1
        return self._keys.counter(self._calls, stream)

    def normal(self, shape: Sequence[int], step: int = 0, stream: Stream = Stream.NOISE) -> Tensor:
        self._calls += 1
        return self._keys.normal(shape, self._calls, stream)

    def uniform(self, shape: Sequence[int], step: int = 0, stream: Stream = Stream.NOISE) -> Tensor:
        self._calls += 1
        return self._keys.uniform(shape, self._calls, stream)


@dataclass(frozen=True)
class Within:
    """The draws of one sampling step under one stream, for what is written for a trajectory of its own.

    Its own steps, below 2^12, come above the sampler's, below 2^20; streams are not kept apart.
    """

    randomness: Randomness
    step: int
    stream: Stream

    @property
    def batch(self) -> int:
        return self.randomness.batch

    @property
    def device(self) -> torch.device:
        return self.randomness.device

    def counter(self, step: int = 0, stream: Stream = Stream.NOISE) -> Counter | None:
        return self.randomness.counter(self.step + (step << 20), self.stream)

    def normal(self, shape: Sequence[int], step: int = 0, stream: Stream = Stream.NOISE) -> Tensor:
        return self.randomness.normal(shape, self.step + (step << 20), self.stream)

    def uniform(self, shape: Sequence[int], step: int = 0, stream: Stream = Stream.NOISE) -> Tensor:
        return self.randomness.uniform(shape, self.step + (step << 20), self.stream)


@dataclass(frozen=True)
class Ambient:
    """Randomness from torch's global generators, for training: the harness seeds them before each phase.

    `step` and `stream` are ignored; every call is a new draw.
    """

    batch: int
    device: torch.device

    def counter(self, step: int = 0, stream: Stream = Stream.NOISE) -> None:
        return None

    def uniform(self, shape: Sequence[int], step: int = 0, stream: Stream = Stream.NOISE) -> Tensor:
        return torch.rand(self.batch, *shape, device=self.device).clamp_(min=2.0**-25)

    def normal(self, shape: Sequence[int], step: int = 0, stream: Stream = Stream.NOISE) -> Tensor:
        return torch.randn(self.batch, *shape, device=self.device)
