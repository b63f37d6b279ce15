"""Samplers without chance: paths that start from known numbers and may end before the data, in float64."""

from __future__ import annotations

import torch
from torch import Tensor

from genbench.corruptions.gaussian import Gaussian
from genbench.corruptions.schedules import Schedule
from genbench.samplers.grids import Grid


class Exact(Gaussian):
    """Starts from `start`, float64, whatever the noise would be; a number stands for all pixels."""

    def __init__(self, schedule: Schedule, start: Tensor | float = 1.0) -> None:
        super().__init__(schedule)
        self.start = start

    def terminal(self, shape, randomness, fitted) -> Tensor:
        return torch.as_tensor(self.start, dtype=torch.float64).expand(tuple(shape)).clone()


class Between(Grid):
    """Steps in half the log-SNR from one time to another, which is not the data.

    All are of one length, or every other one is `longer` times as long.
    """

    def __init__(self, first: float, last: float, longer: float = 1.0) -> None:
        self.ends = torch.tensor([first, last], dtype=torch.float64)
        self.longer = longer

    def __call__(self, steps: int, corruption) -> Tensor:
        first, last = corruption.schedule.half_log_snr(self.ends)
        lengths = torch.ones(steps, dtype=torch.float64)
        lengths[1::2] = self.longer
        share = torch.cat((torch.zeros(1, dtype=torch.float64), lengths.cumsum(0) / lengths.sum()))
        times = corruption.schedule.time_at(first + share * (last - first))
        times[0], times[-1] = self.ends
        return times
