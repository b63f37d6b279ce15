"""Mean and covariance of features, streamed: what Fréchet distances are computed from.

For features x_1 ... x_n in R^D, kept in float64 whatever the features' own type:

    n,    m = 1/n sum_i x_i,    S = sum_i (x_i - m)(x_i - m)^T,    covariance = S / (n - 1)

Sums of centred products do not cancel as sum x x^T - n m m^T does. Two sets a and b join by

    m = m_a + d n_b / n,    S = S_a + S_b + d d^T n_a n_b / n,    d = m_b - m_a

(Chan, Golub and LeVeque 1983), in any order and grouping, so batches, ranks and shards give the same result.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

SumTensors = Callable[[list[Tensor]], None]
"""Adds each tensor over all ranks, in place; does nothing where there is one rank."""


class Moments:
    """Streaming count, mean and scatter of features [B, D]; memory D^2 float64, never the features.

    n: int; mean: float64 [D]; scatter: float64 [D, D] (S above), both on the device of the first update.
    """

    def __init__(self) -> None:
        self.n = 0
        self._mean: Tensor | None = None
        self._scatter: Tensor | None = None

    @classmethod
    def of(cls, features: Tensor) -> Moments:
        """The moments of one matrix of features [n, D]."""
        moments = cls()
        moments.update(features)
        return moments

    @property
    def mean(self) -> Tensor:
        """m, float64 [D]. Raises ValueError before the first update."""
        if self._mean is None:
            raise ValueError("no features have been seen yet")
        return self._mean

    @property
    def scatter(self) -> Tensor:
        """S, float64 [D, D]. Raises ValueError before the first update."""
        if self._scatter is None:
            raise ValueError("no features have been seen yet")
        return self._scatter

    @property
    def covariance(self) -> Tensor:
        """S / (n - 1), float64 [D, D]: the unbiased estimate, as torch-fidelity (numpy.cov) uses."""
        if self.n < 2:
            raise ValueError(f"a covariance needs at least 2 images, found {self.n}")
        return self.scatter / (self.n - 1)

    def update(self, features: Tensor) -> None:
        """Adds the rows of `features` [B, D], floating, B may be 0. Raises ValueError if not finite."""
        if features.ndim != 2:
            raise ValueError(f"features must be [batch, dimension], found shape {tuple(features.shape)}")
        if len(features) == 0:
            return
        rows = features.detach().double()
        mean = rows.mean(dim=0)
        if not bool(mean.isfinite().all()):
            raise ValueError("features contain NaN or infinity")
        rows = rows - mean
        self._join(len(rows), mean, rows.T @ rows)

    def merge(self, other: Moments) -> None:
        """Adds what `other` has seen; `other` is unchanged."""
        if other.n:
            self._join(other.n, other.mean.to(self._device(other)), other.scatter.to(self._device(other)))

    def reduce(self, sum_tensors: SumTensors, dimension: int, device: torch.device | str = "cpu") -> None:
        """Becomes the moments over all ranks. Every rank must call it, also one that has seen nothing.

        `dimension` is D and `device` where the sums are made (a rank without images cannot know either).
        """
        kind: dict[str, Any] = {"dtype": torch.float64, "device": device}
        count = torch.full((1,), float(self.n), **kind)
        total = (self.mean.to(device) * self.n) if self.n else torch.zeros(dimension, **kind)
        sum_tensors([count, total])
        mean = total / count
        scatter = torch.zeros(dimension, dimension, **kind)
        if self.n:
            difference = self.mean.to(device) - mean
            scatter += self.scatter.to(device) + self.n * torch.outer(difference, difference)
        sum_tensors([scatter])
        self.n, self._mean, self._scatter = int(count.item()), mean, scatter

    def state_dict(self) -> dict[str, Tensor]:
        """Tensors that safetensors can hold: n int64 [1], mean float64 [D], scatter float64 [D, D]."""
        return {
            "n": torch.tensor([self.n]),
            "mean": self.mean.cpu().contiguous(),
            "scatter": self.scatter.cpu().contiguous(),
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Tensor]) -> Moments:
        """The inverse of `state_dict`. Raises ValueError where names, shapes or types do not fit."""
        if set(state) != {"n", "mean", "scatter"}:
            raise ValueError(f"expected tensors n, mean and scatter, found {sorted(state)}")
        mean, scatter = state["mean"], state["scatter"]
        fits = mean.ndim == 1 and scatter.shape == (len(mean), len(mean)) and state["n"].numel() == 1
        if not fits or mean.dtype != torch.float64 or scatter.dtype != torch.float64:
            raise ValueError("expected mean float64 [D], scatter float64 [D, D] and n of one element")
        moments = cls()
        moments.n, moments._mean, moments._scatter = int(state["n"]), mean, scatter
        return moments

    @property
    def sha256(self) -> str:
        """Digest of the exact state, to tell which statistics a number was computed against."""
        return digest(self.state_dict())

    def _device(self, other: Moments) -> torch.device:
        return other.mean.device if self._mean is None else self._mean.device

    def _join(self, count: int, mean: Tensor, scatter: Tensor) -> None:
        if self._mean is None or self._scatter is None:
            self.n, self._mean, self._scatter = count, mean.clone(), scatter.clone()
            return
        if mean.shape != self._mean.shape:
            raise ValueError(f"features of dimension {len(mean)} do not join {len(self._mean)}")
        total = self.n + count
        difference = mean - self._mean
        # New tensors and not in-place sums: a caller may hold `mean` or `scatter`.
        self._mean = self._mean + difference * (count / total)
        self._scatter = (self._scatter + scatter).addr_(difference, difference, alpha=self.n * count / total)
        self.n = total


def digest(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 over named tensors: names, shapes, types and every bit, whatever their device."""
    found = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        found.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}\n".encode())
        found.update(tensor.cpu().contiguous().numpy().tobytes())
    return found.hexdigest()
