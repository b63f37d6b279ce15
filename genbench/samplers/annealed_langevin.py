"""Annealed Langevin dynamics (Song & Ermon 2019, algorithm 1; 2020, algorithm 1), in their code's convention.

    T times at every level i:    x <- x + a_i score + sqrt(2 a_i) z,    a_i = e (s_i / s_L)^2

Levels fall from the noisiest. The papers' text writes a/2 and sqrt(a), which makes their e twice this one:
values of e belong to a convention. A last estimate removes the noise that is left (denoise), which the first
paper did not do.
"""

from __future__ import annotations

from torch import Tensor

from genbench.ops.combine import combine
from genbench.ops.random import Stream
from genbench.samplers.grids import Grid
from genbench.samplers.guidance import Clip
from genbench.samplers.iterative import GaussianIterative, Path


class AnnealedLangevin(GaussianIterative):
    """`repeats` steps (T) at each of `steps` levels; step_size: e, the step at the smallest level.

    Levels are the grid's times, so a model of any Gaussian corruption will do; where it scales the data, the
    dynamics run at x_t / alpha and step sizes are in its units.
    """

    def __init__(
        self,
        steps: int,
        grid: Grid,
        repeats: int,
        step_size: float,
        denoise: bool = True,
        clip: Clip = False,
        guidance: float = 0.0,
    ) -> None:
        super().__init__(steps, grid, clip, guidance)
        self.repeats, self.step_size, self.denoise = repeats, step_size, denoise

    def estimates(self) -> int:
        return self.steps * self.repeats + int(self.denoise)

    def walk(self, x: Tensor, times: Tensor, path: Path) -> Tensor:
        corruption = path.corruption
        levels = times[:-1]
        smallest = corruption.sigma(levels[-1]) / corruption.alpha(levels[-1])
        previous = corruption.alpha(levels[0])
        number = 0
        for t in levels:
            alpha, sigma = corruption.alpha(t), corruption.sigma(t)
            if float(alpha) != float(previous):
                x = combine((alpha / previous,), (x,))
            step = self.step_size * (sigma / alpha / smallest) ** 2 * alpha**2
            for _ in range(self.repeats):
                x0 = path.estimate(x, t)
                pull = step / sigma**2
                x = combine(
                    (1 - pull, pull * alpha),
                    (x, x0.estimate),
                    (2 * step).sqrt(),
                    path.randomness,
                    number,
                    Stream.STEP,
                )
                number += 1
            previous = alpha
        last = levels[-1]
        if self.denoise:
            return path.estimate(x, last).mean
        return combine((1 / previous,), (x,))
