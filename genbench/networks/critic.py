"""Critics: an image's features phi(x), and one number made of them.

    v(x, y) = w . phi(x) + b + e_y . phi(x)

Without classes the last term is absent; with them it is the projection critic (Miyato & Koyama 2018, eq. 4).
"""

from __future__ import annotations

from torch import Tensor, nn

from genbench.contracts import UserError
from genbench.networks.initialisation import drawn


class Critic(nn.Module):
    """A network that judges images. Subclasses set `head` and say what `features` are."""

    head: Projection

    def features(self, images: Tensor) -> Tensor:
        """phi: what the last layer sees of images [B, C, H, W]; [B, F]."""
        raise NotImplementedError

    def judge(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        """v, [B]: larger means likelier real. What penalties differentiate twice."""
        return self.head(self.features(images), labels)

    def forward(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        """The same, compiled where the module is; compiled code cannot be differentiated twice."""
        return self.judge(images, labels)


class Projection(nn.Module):
    """The last layer: features [B, F], labels int64 [B] (None without classes) -> [B]."""

    def __init__(self, features: int, classes: int = 0) -> None:
        super().__init__()
        self.linear = drawn(nn.Linear(features, 1))
        self.classes = nn.Embedding(classes, features) if classes else None
        if self.classes is not None:
            nn.init.xavier_uniform_(self.classes.weight)

    def forward(self, features: Tensor, labels: Tensor | None = None) -> Tensor:
        value = self.linear(features).squeeze(1)
        if self.classes is None:
            return value
        if labels is None:
            raise UserError(
                "a critic with classes needs labels; this data set has none: type conditional=false"
            )
        return value + (self.classes(labels) * features).sum(dim=1)
