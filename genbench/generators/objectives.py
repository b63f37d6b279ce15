"""What a critic and a generator play for, as functions of the critic's outputs v on real and on made images.

The variational bound of an f-divergence (Nowozin, Cseke & Tomioka 2016, eq. 6), with T and f*(T) from a head:

    D_f(P || Q) = max_T  E_P[T] - E_Q[f*(T)]

The critic maximises it. The generator minimises it (the saddle point, eq. 7), or maximises E_Q[T] instead,
the paper's section 3.2 and the non-saturating loss of GANs.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping

from torch import Tensor

from genbench.divergences.divergence import Divergence
from genbench.divergences.heads import Head


class Objective(ABC):
    """Two losses over the critic's outputs, float32 [B] each."""

    @abstractmethod
    def critic_loss(self, real: Tensor, fake: Tensor) -> Tensor:
        """What the critic minimises."""

    @abstractmethod
    def generator_loss(self, fake: Tensor) -> Tensor:
        """What the generator minimises."""

    def report(self, real: Tensor, fake: Tensor) -> Mapping[str, Tensor]:
        """Further numbers for the log; none by default."""
        return {}


class GeneratorLoss(ABC):
    """What the generator makes of T and f*(T) on its images."""

    @abstractmethod
    def __call__(self, value: Tensor, conjugate: Tensor) -> Tensor:
        """The loss, from T and f*(T), each [B]."""


class Saddle(GeneratorLoss):
    """The bound itself: -E_Q[f*(T)]."""

    def __call__(self, value: Tensor, conjugate: Tensor) -> Tensor:
        return -conjugate.mean()


class Trick(GeneratorLoss):
    """-E_Q[T]: pushes T up on made images, with a gradient where the critic is sure of itself."""

    def __call__(self, value: Tensor, conjugate: Tensor) -> Tensor:
        return -value.mean()


class Variational(Objective):
    """The variational bound of `divergence` through `head`. Raises UserError where the two do not fit."""

    def __init__(self, divergence: Divergence, head: Head, generator_loss: GeneratorLoss) -> None:
        head.check(divergence)
        self.divergence = divergence
        self.head = head
        self._generator_loss = generator_loss

    def critic_loss(self, real: Tensor, fake: Tensor) -> Tensor:
        value, _ = self.head.terms(self.divergence, real)
        _, conjugate = self.head.terms(self.divergence, fake)
        return conjugate.mean() - value.mean()

    def generator_loss(self, fake: Tensor) -> Tensor:
        return self._generator_loss(*self.head.terms(self.divergence, fake))

    def report(self, real: Tensor, fake: Tensor) -> Mapping[str, Tensor]:
        """The bound: what the critic believes the divergence is at least."""
        return {"bound": -self.critic_loss(real, fake).detach()}
