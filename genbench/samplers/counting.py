"""Network evaluations are counted where they happen, never computed from a formula."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from genbench.contracts import Posterior
from genbench.ops.gradients import gradient


class Counted:
    """A model whose evaluations are counted per image of a batch; everything else passes through.

    Where a sampler evaluates only some images it passes `rows` (bool [B]); the tensors it gives then hold
    just those rows.
    """

    def __init__(self, model: Any, batch: int) -> None:
        self._model = model
        self.nfe = torch.zeros(batch, dtype=torch.int64)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def _count(self, rows: Tensor | None) -> None:
        self.nfe += 1 if rows is None else rows.cpu().long()

    def denoise(
        self, x_t: Tensor, t: Tensor, labels: Tensor | None = None, rows: Tensor | None = None
    ) -> Posterior:
        """`Denoises.denoise`, counted."""
        self._count(rows)
        return self._model.denoise(x_t, t, labels)

    def decode(self, latents: Any, labels: Tensor | None = None, temperature: float = 1.0) -> Tensor:
        """`Decodes.decode`, counted."""
        self._count(None)
        return self._model.decode(latents, labels, temperature)

    def energy(self, x: Tensor, rows: Tensor | None = None) -> Tensor:
        """`Energy.energy`, counted."""
        self._count(rows)
        return self._model.energy(x)

    def gradient(self, x: Tensor, rows: Tensor | None = None) -> Tensor:
        """The gradient of `Energy.energy` at x, [B, C, H, W]; it and the energy it is of count as one."""
        self._count(rows)
        return gradient(self._model.energy, x)
