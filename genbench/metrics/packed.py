"""Moments small enough to be kept in git: what a Fréchet distance needs, without what it does not.

    mean         float64 [D]
    covariance   float64 [D (D + 1) / 2], the upper triangle row by row

128 features take 67 kB, 192 take 150 kB, 256 (the most that are kept) take 265 kB. Rounding to float32 would
halve that, and where there are fewer images than features fill directions in which these do not vary: a
distance of 70 digits moved by 1e-5.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from genbench.errors import UserError
from genbench.metrics.card import SHIPPED
from genbench.metrics.identity import digest_of
from genbench.metrics.moments import Moments

MOST_FEATURES = 256
"""Extractors of more features than these have no moments kept: Inception's would take 8 MB a run."""


def pack(moments: Moments) -> tuple[Tensor, Tensor]:
    """(mean, covariance) as the module says, on the CPU."""
    covariance = moments.covariance.cpu()
    rows, columns = _triangle(len(covariance))
    return moments.mean.cpu(), covariance[rows, columns]


def unpack(n: int, mean: Tensor, covariance: Tensor) -> Moments:
    """The moments of n images from what `pack` made of them. Raises ValueError where the sizes do not fit."""
    size = len(mean)
    if covariance.shape != (size * (size + 1) // 2,):
        raise ValueError(
            f"{size} features have {size * (size + 1) // 2} covariances, found {len(covariance)}"
        )
    rows, columns = _triangle(size)
    scatter = torch.empty(size, size, dtype=torch.float64)
    scatter[rows, columns] = scatter[columns, rows] = covariance * (n - 1)
    return Moments.from_state({"n": torch.tensor([n]), "mean": mean, "scatter": scatter})


@cache
def _triangle(size: int) -> Tensor:
    """Rows and columns of the upper triangle, int64 [2, size (size + 1) / 2]."""
    return torch.triu_indices(size, size)


def reference_path(name: str, folder: Path = SHIPPED) -> Path:
    """Where the moments of the training split lie that come with the extractor `name`."""
    return folder / f"{name}.reference.safetensors"


def write_reference(moments: Moments, making: str, path: Path) -> None:
    """Keeps a training split's moments and what they were made of (see `genbench.metrics.identity`)."""
    mean, covariance = pack(moments)
    tensors = {"n": torch.tensor([moments.n]), "mean": mean, "covariance": covariance}
    save_file(tensors, path, metadata={"making": making})


@cache
def read_reference(path: Path) -> tuple[Moments, str]:
    """Moments of real images that `write_reference` wrote, and the digest that results record of them."""
    if not path.is_file():
        raise UserError(f"{path} is missing, though its extractor is there; reinstall genbench")
    with safe_open(path, framework="pt") as stored:
        n, mean, covariance = (stored.get_tensor(name) for name in ("n", "mean", "covariance"))
        return unpack(int(n), mean, covariance), digest_of(stored.metadata()["making"])
