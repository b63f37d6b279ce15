"""Designing GANs (kexue.fm 7210): a family of objectives that needs no conjugate and no divergence.

With the ratio r = q/p (of made to real images), an increasing omega and a rho > 0, let

    psi'(T) = rho(T),        phi'(T) = -omega^{-1}(T) rho(T),        psi(omega(1)) = 0.

Then E_P phi(T) + E_Q psi(T) is largest at T = omega(q/p): larger T means *made*. The generator may minimise
E_Q beta(T), provided that for some alpha the function d(r) = alpha(omega(r)) + r beta(omega(r)) is convex,
which makes E_P d(q/p) a divergence. An objective of one's own is a class with these functions; `verify`
checks the conditions on a grid of ratios.
"""

from __future__ import annotations

from abc import abstractmethod

import torch
import torch.nn.functional as F
from torch import Tensor

from genbench.contracts import UserError
from genbench.generators.objectives import Objective


class Designed(Objective):
    """The family above. `beta` is psi, the saddle point, unless a class says otherwise."""

    @abstractmethod
    def omega(self, r: Tensor) -> Tensor:
        """The best T at the ratio r > 0; increasing."""

    @abstractmethod
    def phi(self, t: Tensor) -> Tensor:
        """What the critic gains from T on a real image."""

    @abstractmethod
    def psi(self, t: Tensor) -> Tensor:
        """What the critic gains from T on a made image."""

    def alpha(self, t: Tensor) -> Tensor:
        """The part of the generator's divergence that its images have no say in."""
        return self.phi(t)

    def beta(self, t: Tensor) -> Tensor:
        """What the generator loses by T on a made image."""
        return self.psi(t)

    def critic_loss(self, real: Tensor, fake: Tensor) -> Tensor:
        return -self.phi(real).mean() - self.psi(fake).mean()

    def generator_loss(self, fake: Tensor) -> Tensor:
        return self.beta(fake).mean()

    def verify(self) -> None:
        """Raises UserError, saying which, where one of the family's conditions does not hold."""
        r = torch.logspace(-2, 2, 401, dtype=torch.float64)
        t = self.omega(r).detach().requires_grad_(True)
        rho = torch.autograd.grad(self.psi(t).sum(), t)[0]
        slope = torch.autograd.grad(self.phi(t).sum(), t)[0]
        one = self.omega(torch.ones((), dtype=torch.float64))
        divergence = self.alpha(t) + r * self.beta(t)
        steps = divergence.diff() / r.diff()
        conditions = {
            "omega must increase": bool((t.diff() > 0).all()),
            "psi' must be positive": bool((rho > 0).all()),
            "phi' must be -omega^{-1} psi'": torch.allclose(slope, -r * rho, rtol=1e-8, atol=1e-12),
            "psi(omega(1)) must be 0": abs(float(self.psi(one))) < 1e-12,
            "alpha(omega(r)) + r beta(omega(r)) must be convex": bool((steps.diff() > -1e-9).all()),
        }
        broken = [condition for condition, holds in conditions.items() if not holds]
        if broken:
            raise UserError(f"{type(self).__name__} is no objective of this family: {'; '.join(broken)}.")


class NonSaturating(Designed):
    """Goodfellow et al. (2014) with the non-saturating generator: T = log(q/p), d(r) = r log(1 + r)."""

    def omega(self, r: Tensor) -> Tensor:
        return r.log()

    def phi(self, t: Tensor) -> Tensor:
        return torch.log(t.new_tensor(2.0)) - F.softplus(t)

    def psi(self, t: Tensor) -> Tensor:
        return torch.log(t.new_tensor(2.0)) - F.softplus(-t)

    def alpha(self, t: Tensor) -> Tensor:
        return torch.zeros_like(t)

    def beta(self, t: Tensor) -> Tensor:
        return F.softplus(t)


class LinearGenerator(NonSaturating):
    """The same critic, and a generator that minimises E_Q[T] itself: the reverse KL, d(r) = r log r."""

    def beta(self, t: Tensor) -> Tensor:
        return t


class LeastSquares(Designed):
    """LSGAN (Mao et al. 2017) with b - a = 2: targets -1 for real and 1 for made images, 0 for the generator.

    T = (r - 1) / (r + 1), d(r) = (r - 1)^2 / (2 (r + 1)): Pearson's divergence of p + q and 2 q.
    """

    def omega(self, r: Tensor) -> Tensor:
        return (r - 1) / (r + 1)

    def phi(self, t: Tensor) -> Tensor:
        return 0.5 - (t + 1).square() / 2

    def psi(self, t: Tensor) -> Tensor:
        return 0.5 - (t - 1).square() / 2

    def alpha(self, t: Tensor) -> Tensor:
        return t.square() / 2

    def beta(self, t: Tensor) -> Tensor:
        return t.square() / 2


class Hinge(Objective):
    """max(0, 1 - v) on real and max(0, 1 + v) on made images; the generator maximises v (SNGAN's loss).

    The limit of the family in which omega becomes a step, T = sign(q - p); larger v means *real* here.
    """

    def critic_loss(self, real: Tensor, fake: Tensor) -> Tensor:
        return F.relu(1 - real).mean() + F.relu(1 + fake).mean()

    def generator_loss(self, fake: Tensor) -> Tensor:
        return -fake.mean()
