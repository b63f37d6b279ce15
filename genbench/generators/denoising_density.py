"""DDE: two density estimators that denoise, and a generator that learns from their difference.

    L_DDE(s; p) = E_{x ~ p, eta ~ N(0, sigma^2 I)} || sigma^2 grad s(x + eta) + eta ||^2
    L_G         = E_{z, eta} [ s_q(g(z) + eta) - s_p(g(z) + eta) ]

(Bigdeli, Lin, Portenier, Dunbar & Zwicker 2020, arXiv 2001.02728.) The optimum of L_DDE is
s = log p_sigma + const with p_sigma = p * N(0, sigma^2 I): the best denoiser is x + sigma^2 grad log p_sigma,
and s being a scalar, its gradient can be nothing but a gradient. With s_p trained on data and s_q on made
images, L_G is KL(q_sigma || p_sigma) up to constants, and its gradient, taken through the samples with s_q's
weights held, is the KL's: the term left out is E_q[d log q / d theta] = 0. q_sigma = p_sigma only if q = p.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from genbench.contracts import Batch, Generator, Losses, Phase, Step, UserError
from genbench.ops.gradients import gradient
from genbench.ops.random import Randomness, Stream


@dataclass(frozen=True)
class Normaliser:
    """log Z of an unnormalised log-density, in nats, and how far to trust it.

    effective: (sum w)^2 / sum w^2 of the importance weights w, between 1 and their number. Near 1 a single
    draw decides, as it will in hundreds of dimensions, and log_z says nothing.
    """

    log_z: Tensor
    effective: Tensor


class DDE(Generator):
    """Density estimators s_p and s_q, images [B, C, H, W] to [B], and a generator, [B, latent] to images.

    sigma: the noise of both, in the units of images in [-1, 1]; what lies closer together than that is told
    apart only weakly; real_steps, fake_steps: optimiser steps of s_p and of s_q, each on a batch of its own,
    for one of the generator. s_q has to keep up with it, or L_G is the KL of a generator that is gone.

    The log-density of the (noisy) data makes this an energy as well: E = -s_p at temperature 1, whose
    `reference_sigma` is sigma.
    """

    def __init__(
        self,
        s_p: nn.Module,
        s_q: nn.Module,
        generator: nn.Module,
        sigma: float,
        image_shape: Sequence[int],
        latent: int,
        real_steps: int = 5,
        fake_steps: int = 5,
    ) -> None:
        super().__init__()
        if not sigma > 0 or min(latent, real_steps, fake_steps) < 1:
            raise UserError(
                f"DDE needs model.sigma > 0 and model.latent, model.real_steps, model.fake_steps >= 1, found "
                f"{sigma}, {latent}, {real_steps} and {fake_steps}"
            )
        self.s_p = s_p
        self.s_q = s_q
        self.generator = generator
        self.sigma = sigma
        self.reference_sigma = sigma
        channels, height, width = image_shape
        self.image_shape = (channels, height, width)
        self.latent_shapes = ((latent,),)
        self.real_steps = real_steps
        self.fake_steps = fake_steps

    def renormalised(self) -> nn.Module:
        """The generator: what batch normalisation it has saw other weights in training."""
        return self.generator

    def phases(self) -> Sequence[Phase]:
        return [
            Phase("s_p", self.s_p, self.real_loss, repeats=self.real_steps),
            Phase("s_q", self.s_q, self.fake_loss, repeats=self.fake_steps),
            Phase("generator", self.generator, self.generator_loss),
        ]

    def real_loss(self, batch: Batch, step: Step) -> Losses:
        """L_DDE of s_p on data."""
        return self._denoising(self.s_p, batch.images)

    def fake_loss(self, batch: Batch, step: Step) -> Losses:
        """L_DDE of s_q on as many made images as the batch has."""
        with torch.no_grad():
            made = self._make(batch).float()
        return self._denoising(self.s_q, made)

    def generator_loss(self, batch: Batch, step: Step) -> Losses:
        """L_G, whose value means nothing by itself: s_p and s_q each have a constant of their own."""
        made = self._make(batch).float()
        # Two numbers of hundreds of nats are subtracted here: not under autocast.
        with torch.autocast(made.device.type, enabled=False):
            noisy = made + self.sigma * torch.randn_like(made)
            return Losses((self.s_q(noisy) - self.s_p(noisy)).mean())

    def decode(
        self, latents: Sequence[Tensor], labels: Tensor | None = None, temperature: float = 1.0
    ) -> Tensor:
        """Images [B, C, H, W] in [-1, 1] from one [B, latent] of standard normals."""
        return self.generator(temperature * latents[0]).float()

    def energy(self, x: Tensor) -> Tensor:
        """-s_p(x), [B], nats up to a constant: minus the log-density of data with noise."""
        return -self.s_p(x)

    def log_density(self, x: Tensor, normaliser: Normaliser) -> Tensor:
        """log p_sigma(x) = s_p(x) - log Z, nats, [B]: of data with noise, not of data."""
        return self.s_p(x) - normaliser.log_z

    @torch.no_grad()
    def log_normaliser(self, randomness: Randomness, mean: Tensor | float, std: float) -> Normaliser:
        """log Z = log E_{x ~ r} exp(s_p(x)) / r(x) with r = N(mean, std^2 I), from `randomness.batch` draws.

        mean: [C, H, W] or a number, such as the data's; std: no less than p_sigma's widest, for data of unit
        variance sqrt(1 + sigma^2); a narrower r has weights of infinite variance.
        """
        noise = randomness.normal(self.image_shape, stream=Stream.PROBE)
        # A log-density sums over pixels; the reference's UCI code takes a mean in this place.
        log_r = -(0.5 * noise.double().square() + 0.5 * math.log(2 * math.pi) + math.log(std))
        log_weights = self.s_p(mean + std * noise).double() - log_r.flatten(1).sum(dim=1)
        total = log_weights.logsumexp(dim=0)
        effective = (2 * total - (2 * log_weights).logsumexp(dim=0)).exp()
        return Normaliser((total - math.log(randomness.batch)).float(), effective.float())

    def _denoising(self, s: nn.Module, x: Tensor) -> Losses:
        """L_DDE, and as "error" the same a pixel and in units of sigma^2: 1 where s is constant."""
        eta = self.sigma * torch.randn_like(x)
        residual = self.sigma**2 * gradient(s, x + eta, create_graph=True) + eta
        total = residual.square().flatten(1).sum(dim=1).mean()
        return Losses(total, {"error": total / (self.sigma**2 * x[0].numel())})

    def _make(self, batch: Batch) -> Tensor:
        latents = torch.randn(len(batch.images), *self.latent_shapes[0], device=batch.images.device)
        return self.generator(latents)
