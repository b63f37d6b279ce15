"""What keeps a critic in bounds. Each combines with any objective, and they combine with each other.

    R1                gamma/2 E_P |grad v|^2                       (Mescheder, Geiger & Nowozin 2018, eq. 9)
    R2                gamma/2 E_Q |grad v|^2                       (the same, eq. 10)
    gradient penalty  lambda E (|grad v(x')| - 1)^2, x' on lines between real and made images
                                                                   (Gulrajani et al. 2017, eq. 3)
    Rademacher        lambda/2 E |sum_i eta_i grad phi_i|^2        (kexue.fm 7466)
    spectral          every layer's matrix divided by its largest singular value (Miyato et al. 2018)

Noise of deviation s on the inputs of phi costs, to second order, s^2 sum_i |grad phi_i|^2 in squared error.
That sum over outputs is what one random sign an output, eta_i = +-1, estimates without bias in a single
backward pass. The penalties are computed outside autocast: a gradient's gradient in bfloat16 is mostly noise.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from genbench.contracts import UserError
from genbench.networks.critic import Critic
from genbench.ops.gradients import gradient


class Regulariser:
    """A change to the critic before training, a penalty while training, or both; by default neither."""

    def prepare(self, critic: nn.Module) -> None:
        """Called once, on the untrained critic."""

    def penalty(self, critic: Critic, real: Tensor, fake: Tensor, labels: Tensor | None) -> Tensor | None:
        """A scalar to add to the critic's loss; images [B, C, H, W], those of `fake` without gradient."""
        return None


def _checked(weight: float) -> float:
    if weight < 0:
        raise UserError(f"the weight of a penalty is 0 or more, found {weight}; see regulariser=")
    return weight


def steepness(critic: Critic, images: Tensor, labels: Tensor | None) -> Tensor:
    """|grad v|^2 at each image, [B], differentiable in the critic's weights."""
    slope = gradient(lambda x: critic.judge(x, labels), images.float(), create_graph=True)
    return _square(slope)


def _square(gradients: Tensor) -> Tensor:
    """Squared norms, [B]."""
    return gradients.square().flatten(1).sum(dim=1)


class Spectral(Regulariser):
    """Divides every layer's matrix by its largest singular value, found by power iteration."""

    def prepare(self, critic: nn.Module) -> None:
        for layer in list(critic.modules()):
            if isinstance(layer, nn.Conv2d | nn.Linear | nn.Embedding):
                spectral_norm(layer)


class RealGradient(Regulariser):
    """R1: the critic is to be flat where the data is."""

    def __init__(self, weight: float) -> None:
        self.weight = _checked(weight)

    def penalty(self, critic: Critic, real: Tensor, fake: Tensor, labels: Tensor | None) -> Tensor:
        return self.weight / 2 * steepness(critic, real, labels).mean()


class FakeGradient(Regulariser):
    """R2: the critic is to be flat where the generator is."""

    def __init__(self, weight: float) -> None:
        self.weight = _checked(weight)

    def penalty(self, critic: Critic, real: Tensor, fake: Tensor, labels: Tensor | None) -> Tensor:
        return self.weight / 2 * steepness(critic, fake, labels).mean()


class UnitGradient(Regulariser):
    """WGAN-GP's: the critic is to have slope one between the data and the generator."""

    def __init__(self, weight: float) -> None:
        self.weight = _checked(weight)

    def penalty(self, critic: Critic, real: Tensor, fake: Tensor, labels: Tensor | None) -> Tensor:
        share = torch.rand(len(real), 1, 1, 1, device=real.device)
        between = torch.lerp(real, fake, share)
        norms = (steepness(critic, between, labels) + 1e-12).sqrt()
        return self.weight * (norms - 1).square().mean()


class Rademacher(Regulariser):
    """Flat features: the squared norm of their whole Jacobian, on real and made images."""

    def __init__(self, weight: float) -> None:
        self.weight = _checked(weight)

    def penalty(self, critic: Critic, real: Tensor, fake: Tensor, labels: Tensor | None) -> Tensor:
        return self.weight / 2 * jacobian_square(critic.features, torch.cat([real, fake])).mean()


def jacobian_square(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """An unbiased estimate of sum_i |grad f_i(x)|^2 for f: [B, ...] -> [B, F]; [B]."""

    def signed(x: Tensor) -> Tensor:
        values = function(x)
        return values * torch.randint_like(values, 0, 2).mul_(2).sub_(1)

    return _square(gradient(lambda x: signed(x).sum(dim=1), x.float(), create_graph=True))
