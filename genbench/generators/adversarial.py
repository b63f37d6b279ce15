"""Generators trained against a critic: the f-GAN family and whatever has two losses over its output.

    critic      min  objective.critic_loss(v(x), v(G(z)))  +  penalties
    generator   min  objective.generator_loss(v(G(z)))              z ~ N(0, I)

Which divergence, which generator loss, which penalties and in what order the two are updated are objects.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from genbench.contracts import Batch, Generator, Losses, Phase, Step, Together
from genbench.generators.objectives import Objective
from genbench.generators.regularisers import Regulariser
from genbench.generators.updates import Updates
from genbench.networks.critic import Critic


class Adversarial(Generator):
    """A decoder of noise and the critic it is trained against.

    generator: (latents [B, latent], labels or None) -> images; regularisers: by the name their
    penalty has in the log; classes: 0 for an unconditional pair, else labels reach both, and made images
    carry the labels of the batch.
    """

    def __init__(
        self,
        generator: nn.Module,
        critic: Critic,
        objective: Objective,
        updates: Updates,
        image_shape: Sequence[int],
        latent: int,
        regularisers: Mapping[str, Regulariser] | None = None,
        classes: int = 0,
    ) -> None:
        super().__init__()
        self.generator = generator
        self.critic = critic
        self.objective = objective
        self.updates = updates
        channels, height, width = image_shape
        self.image_shape = (channels, height, width)
        self.latent_shapes = ((latent,),)
        self.regularisers = dict(regularisers or {})
        self.classes = classes
        for regulariser in self.regularisers.values():
            regulariser.prepare(critic)

    def renormalised(self) -> nn.Module:
        """The generator: its batch statistics in training are those of other weights."""
        return self.generator

    def phases(self) -> Sequence[Phase | Together]:
        return self.updates.arrange(
            Phase("critic", self.critic, self.critic_loss),
            Phase("generator", self.generator, self.generator_loss),
        )

    def critic_loss(self, batch: Batch, step: Step) -> Losses:
        """The critic's loss with penalties; logs each penalty and what the objective reports."""
        real, labels = batch.images, batch.labels if self.classes else None
        with torch.no_grad():
            fake = self._make(len(real), labels, real.device).float()
        both = None if labels is None else torch.cat([labels, labels])
        real_output, fake_output = self.critic(torch.cat([real, fake]), both).float().chunk(2)
        total = self.objective.critic_loss(real_output, fake_output)
        parts = dict(self.objective.report(real_output, fake_output))
        for name, regulariser in self.regularisers.items():
            penalty = regulariser.penalty(self.critic, real, fake, labels)
            if penalty is not None:
                parts[name] = penalty
                total = total + penalty
        return Losses(total, parts)

    def generator_loss(self, batch: Batch, step: Step) -> Losses:
        """The generator's loss on as many new images as the batch has."""
        labels = batch.labels if self.classes else None
        fake = self._make(len(batch.images), labels, batch.images.device)
        return Losses(self.objective.generator_loss(self.critic(fake, labels).float()))

    def decode(
        self, latents: Sequence[Tensor], labels: Tensor | None = None, temperature: float = 1.0
    ) -> Tensor:
        """Images [B, C, H, W] in [-1, 1] from one [B, latent] of standard normals."""
        return self.generator(temperature * latents[0], labels if self.classes else None)

    def _make(self, count: int, labels: Tensor | None, device: torch.device) -> Tensor:
        latents = torch.randn(count, *self.latent_shapes[0], device=device)
        return self.generator(latents, labels)
