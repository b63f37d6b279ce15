"""Langevin steps that pull x_t towards the law at its own time t (Song et al. 2021, algorithms 4 and 5).

    x <- x + e score + sqrt(2 e) z,      e = 2 a (r |z| / |score|)^2

a is 1 without scaling and (alpha_t / alpha_s)^2 = 1 - beta with it. e is at most sigma_t^2, beyond which a
step overshoots the noise itself: a network that has learnt little may answer with hardly any score. Norms
are those of each image. The reference code takes their mean over the batch, which makes an image depend on
its batch; `norm="batch"` does so too, to reproduce its figures and for nothing else.
"""

from __future__ import annotations

import torch
from torch import Tensor

from genbench.contracts import UserError
from genbench.ops.combine import ONE, combine
from genbench.ops.random import Stream
from genbench.samplers.iterative import Path


class Langevin:
    """`steps` corrections at each time, with signal-to-noise ratio r = `ratio`."""

    def __init__(self, steps: int = 1, ratio: float = 0.16, norm: str = "image") -> None:
        if norm not in ("image", "batch"):
            raise UserError(f"corrector.norm={norm}: type image, or batch to reproduce the reference code.")
        self.steps, self.ratio, self.norm = steps, ratio, norm

    def __call__(self, x: Tensor, t: Tensor, s: Tensor, step: int, path: Path) -> Tensor:
        """x at time t, corrected; s < t is where the sampler goes next, `step` the number of its step."""
        corruption = path.corruption
        alpha, sigma = corruption.alpha(t), corruption.sigma(t)
        for correction in range(self.steps):
            x0 = path.estimate(x, t)
            score = combine((-1 / sigma**2, alpha / sigma**2), (x, x0.estimate))
            number = step * self.steps + correction
            noise = path.randomness.normal(x.shape[1:], number, Stream.CORRECTOR).to(x.dtype)
            size = 2 * (alpha / corruption.alpha(s)) ** 2 * (self.ratio * self._ratio(noise, score)) ** 2
            size = torch.minimum(size, sigma**2)
            x = combine((ONE, size, (2 * size).sqrt()), (x, score, noise))
        return x

    def _ratio(self, noise: Tensor, score: Tensor) -> Tensor:
        """|z| / |score|, float64 [B] or []."""
        lengths = [tensor.double().flatten(1).norm(dim=1) for tensor in (noise, score)]
        if self.norm == "batch":
            lengths = [length.mean() for length in lengths]
        return lengths[0] / lengths[1]
