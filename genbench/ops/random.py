"""Randomness as a function: counter-based normals and uniforms, the same for any batch size or rank count.

Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011) maps a 128-bit counter
and a 64-bit key to four 32-bit integers. An image's key is (seed, index); the counter is

    (block of four elements, step, stream, 0)

so any number can be had without drawing the ones before it, and image i never sees its batch. Integers are
exact; normals are computed in float64 and rounded once, so that vectorised and scalar code paths of the
machine's mathematics library cannot be told apart.
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


class Randomness(Protocol):
    """A source of noise for B images: keyed and repeatable (`Keys`), or torch's own (`Ambient`)."""

    @property
    def batch(self) -> int:
        """B, the number of images it serves."""

    @property
    def device(self) -> torch.device:
        """Where its tensors are made."""

    def normal(self, shape: Sequence[int], step: int = 0, stream: Stream = Stream.NOISE) -> Tensor:
        """Standard normals, float32 of shape [B, *shape]."""

    def uniform(self, shape: Sequence[int], step: int = 0, stream: Stream = Stream.NOISE) -> Tensor:
        """Uniforms in the open interval (0, 1), float32 of shape [B, *shape]."""


def _multiply(multiplier: int, value: Tensor) -> tuple[Tensor, Tensor]:
    """High and low 32 bits of a product of unsigned 32-bit integers held in int64.

    The 64-bit product overflows int64's sign bit; halves of 16 bits keep every partial product below 2^49.
    """
    low_product = multiplier * (value & 0xFFFF)
    high_product = multiplier * (value >> 16)
    middle = high_product + (low_product >> 16)
    return middle >> 16, ((middle & 0xFFFF) << 16) | (low_product & 0xFFFF)


def philox(counter: Sequence[Tensor], key: Sequence[Tensor]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Philox4x32-10: four words from a counter of four words and a key of two.

    All are int64 tensors (broadcastable) holding unsigned 32-bit values.
    """
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(_ROUNDS):
        high0, low0 = _multiply(_MULTIPLIERS[0], c0)
        high1, low1 = _multiply(_MULTIPLIERS[1], c2)
        c0, c1, c2, c3 = high1 ^ c1 ^ k0, low1, high0 ^ c3 ^ k1, low0
        k0, k1 = (k0 + _WEYL[0]) & _LOW, (k1 + _WEYL[1]) & _LOW
    return c0, c1, c2, c3


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

    def words(self, count: int, step: int, stream: Stream) -> Tensor:
        """Unsigned 32-bit words in int64, [B, count]; word 4j + l is lane l of counter block j."""
        blocks = torch.arange(-(-count // 4), device=self.device)
        constant = torch.zeros((), dtype=torch.int64, device=self.device)
        counter = (blocks, constant + step, constant + int(stream), constant)
        key = (self.index[:, None] & _LOW, constant + (self.seed & _LOW))
        lanes = torch.broadcast_tensors(*philox(counter, key))
        return torch.stack(lanes, dim=-1).reshape(self.batch, -1)[:, :count]

    def uniform(self, shape: Sequence[int], step: int = 0, stream: Stream = Stream.NOISE) -> Tensor:
        count = math.prod(shape)
        words = self.words(count, step, stream)
        # 23 bits and a half are exact in float32; with 24 the largest would round to 1.
        return (words >> 9).float().add_(0.5).mul_(2.0**-23).reshape(self.batch, *shape)

    def integers(self, bound: int, stream: Stream) -> Tensor:
        """One integer in [0, bound) an image, int64 [B], even to one part in 2^32."""
        return (self.words(1, 0, stream)[:, 0] * bound) >> 32

    def normal(self, shape: Sequence[int], step: int = 0, stream: Stream = Stream.NOISE) -> Tensor:
        count = math.prod(shape)
        pairs = self.words(count + count % 2, step, stream).reshape(self.batch, -1, 2)
        uniform = (pairs.double() + 0.5) * 2.0**-32
        radius = (-2.0 * uniform[..., 0].log()).sqrt()
        angle = uniform[..., 1] * (2.0 * math.pi)
        normals = torch.stack((radius * angle.cos(), radius * angle.sin()), dim=-1)
        return normals.reshape(self.batch, -1)[:, :count].float().reshape(self.batch, *shape)


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

    def uniform(self, shape: Sequence[int], step: int = 0, stream: Stream = Stream.NOISE) -> Tensor:
        return torch.rand(self.batch, *shape, device=self.device).clamp_(min=2.0**-25)

    def normal(self, shape: Sequence[int], step: int = 0, stream: Stream = Stream.NOISE) -> Tensor:
        return torch.randn(self.batch, *shape, device=self.device)
