"""What a network's output says of x0, and how it learns to say it.

An estimator is the part of a denoiser that differs between regression, distributions over grey levels and
learned variances; what is destroyed, and how, is the corruption's affair.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from genbench.contracts import Corruption, Losses, Posterior, UserError
from genbench.corruptions.additive import Additive
from genbench.corruptions.gaussian import Gaussian, Linear
from genbench.corruptions.gaussian_rules import LearnedVariance
from genbench.generators.parameterisations import Parameterisation
from genbench.generators.weightings import Flat, Weighting
from genbench.likelihood.bound import step_bits
from genbench.ops.combine import expand, linear, tensor


@dataclass(frozen=True)
class Trial:
    """A training batch: x_t = F_t(x0, noise) at times t float64 [B], and the network's output, float32."""

    x0: Tensor
    noise: Any
    x_t: Tensor
    t: Tensor
    output: Tensor


class Estimator(ABC):
    """Between a network and a posterior over x0."""

    def seen(self, x_t: Tensor, t: Tensor, corruption: Any) -> Tensor:
        """What the network is given for x_t [B, ...] at t [] or [B]."""
        return x_t

    def check(self, corruption: Corruption) -> None:
        """Raises UserError where this cannot be learnt under `corruption`. Called before training."""
        return None

    @abstractmethod
    def loss(self, trial: Trial, corruption: Any) -> Losses:
        """What training minimises: the mean over the batch."""

    @abstractmethod
    def posterior(self, output: Tensor, x_t: Tensor, t: Tensor, corruption: Any) -> Posterior:
        """What the output means; it may be of lower precision than x_t."""


class Regression(Estimator):
    """The mean of x0 under Gaussian corruption, by regression on any of its equivalents.

        L = E_{t, x0, eps} w(t) || target - output ||^2 / D,     x_t = alpha_t x0 + sigma_t eps

    (Ho et al. 2020, eq. 14), with the mean over the D dimensions of an image.
    parameterisation: what the output stands for; weighting: w, `Flat` unless given.
    """

    def __init__(self, parameterisation: Parameterisation, weighting: Weighting | None = None) -> None:
        self.parameterisation = parameterisation
        self.weighting = weighting or Flat()

    def check(self, corruption: Corruption) -> None:
        if not isinstance(corruption, Linear):
            raise UserError(
                "estimator=regression reads noise and signal off x_t, which this corruption has not. Type "
                "estimator=restoration."
            )

    def seen(self, x_t: Tensor, t: Tensor, corruption: Linear) -> Tensor:
        scale = self.parameterisation.scale(corruption.alpha(t), corruption.sigma(t))
        if scale is None:
            return x_t
        return tensor(corruption.image(linear((scale,), (corruption.coordinates(x_t),))))

    def loss(self, trial: Trial, corruption: Linear) -> Losses:
        level = corruption.level(trial.t)
        x0, noise, output = map(corruption.coordinates, (trial.x0, trial.noise, trial.output))
        target = self.parameterisation.target(x0, noise, level.alpha, level.sigma)
        errors = (output - target).square()
        weights = expand(self.weighting(level, self.parameterisation), errors)
        return Losses((weights * errors).flatten(1).mean(dim=1).mean())

    def posterior(self, output: Tensor, x_t: Tensor, t: Tensor, corruption: Linear) -> Posterior:
        out, x = corruption.coordinates(output), corruption.coordinates(x_t)
        x0 = self.parameterisation.x0(out, x, corruption.alpha(t), corruption.sigma(t))
        return Posterior(corruption.image(x0))


class Restoration(Estimator):
    """x0 itself under any corruption: the unified diffusion model's Gaussian or Laplace head (kexue.fm 9262).

        L = E |x0 - x0_hat|^power / D

    power: 2 for the mean of x0, 1 for its median, as in cold diffusion (Bansal et al. 2022, eq. 2); residual:
    whether the network's output is added to x_t. Where x_t is certain, it is kept and not learnt.
    """

    def __init__(self, power: int = 2, residual: bool = True) -> None:
        if power not in (1, 2):
            raise UserError(f"estimator.power={power}: type 2 (squared error) or 1 (absolute).")
        self.power, self.residual = power, residual

    def loss(self, trial: Trial, corruption: Corruption) -> Losses:
        errors = self._read(trial.output, trial.x_t, corruption) - trial.x0
        return Losses((errors.square() if self.power == 2 else errors.abs()).mean())

    def posterior(self, output: Tensor, x_t: Tensor, t: Tensor, corruption: Corruption) -> Posterior:
        return Posterior(self._read(output, x_t, corruption))

    def _read(self, output: Tensor, x_t: Tensor, corruption: Corruption) -> Tensor:
        x0 = x_t + output if self.residual else output.to(x_t.dtype)
        known = corruption.known(x_t)
        return x0 if known is None else torch.where(known, x_t, x0)


class Dissipation(Estimator):
    """Inverse heat dissipation (Rissanen et al. 2023, eq. 8): the image one step less degraded, noise-free.

    L = E || F_s(x0) - (x_t + output) ||^2 / D,      s = t - 1/T
    """

    def check(self, corruption: Corruption) -> None:
        if not isinstance(corruption, Additive) or corruption.steps is None:
            raise UserError(
                "estimator=dissipation predicts one step less of a degradation in discrete steps, such as "
                "corruption=blur corruption.steps=100."
            )

    def loss(self, trial: Trial, corruption: Additive) -> Losses:
        assert corruption.steps is not None
        target = corruption.degrade(trial.x0, trial.t - 1 / corruption.steps)
        return Losses((trial.x_t + trial.output - target).square().mean())

    def posterior(self, output: Tensor, x_t: Tensor, t: Tensor, corruption: Additive) -> Posterior:
        earlier = x_t + output
        return Posterior(earlier, earlier=earlier)


class Hybrid(Regression):
    """Improved DDPM (Nichol & Dhariwal 2021): the variance of the reverse step is learned beside its mean.

        L_hybrid = L_simple + w T L_t,    L_t = the variational bound's term at t, in bits per dimension

    The second half of the output's channels, o, says v = (o + 1) / 2: where between beta~ and beta the
    step's log-variance lies (eq. 15). In L_t the mean is held still (stop-gradient): only the variance learns
    from it. levels: grey levels of the data, for the first term; bound_weight: w T above, 1 for T = 1000, as
    their code has it; simple: whether L_simple is part of the loss.
    """

    def __init__(
        self, parameterisation: Parameterisation, levels: int, bound_weight: float = 1.0, simple: bool = True
    ) -> None:
        super().__init__(parameterisation)
        self.levels = levels
        self.bound_weight = bound_weight
        self.simple = simple

    def check(self, corruption: Corruption) -> None:
        if not isinstance(corruption, Gaussian) or corruption.steps is None:
            raise UserError(
                "estimator=hybrid needs the variational bound of Gaussian corruption in discrete times, "
                "such as corruption=vp schedule=cosine."
            )

    def loss(self, trial: Trial, corruption: Any) -> Losses:
        """L_hybrid; logs both parts."""
        mean, share = trial.output.chunk(2, dim=1)
        level = corruption.level(trial.t)
        target = self.parameterisation.target(trial.x0, trial.noise, level.alpha, level.sigma)
        simple = (mean - target).square().mean()
        still = self.parameterisation.x0(mean.detach(), trial.x_t, level.alpha, level.sigma)
        posterior = Posterior(still, share=(share + 1) / 2)
        bits = step_bits(corruption, trial.x0, trial.x_t, trial.t, posterior, LearnedVariance(), self.levels)
        bound = bits.mean().float()
        total = self.bound_weight * bound + (simple if self.simple else 0.0)
        return Losses(total, {"simple": simple, "bound": bound})

    def posterior(self, output: Tensor, x_t: Tensor, t: Tensor, corruption: Linear) -> Posterior:
        mean, share = output.chunk(2, dim=1)
        estimate = self.parameterisation.x0(mean, x_t, corruption.alpha(t), corruption.sigma(t))
        return Posterior(estimate, share=(share.to(x_t.dtype) + 1) / 2)
