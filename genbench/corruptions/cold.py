"""Blur and pixelation with little noise or none (Bansal et al. 2022; Rissanen et al. 2023; kexue.fm 9271)."""

from __future__ import annotations

from torch import Tensor

from genbench.corruptions.additive import Additive
from genbench.corruptions.fading import Fading
from genbench.corruptions.terminal import Terminal


class Faded(Additive):
    """An image whose coefficients fade: `fading` says how, the rest is `Additive`'s."""

    def __init__(
        self, fading: Fading, noise: float = 0.0, ending: Terminal | None = None, steps: int | None = None
    ) -> None:
        super().__init__(noise, ending, steps)
        self.fading = fading

    def __str__(self) -> str:
        return type(self.fading).__name__

    def degrade(self, x0: Tensor, t: Tensor) -> Tensor:
        return self.fading.apply(x0, t)
