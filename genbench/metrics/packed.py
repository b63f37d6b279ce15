"""Moments small enough to be kept in git: what a Fréchet distance needs, without what it does not.

    mean         float64 [D]
    covariance   float64 [D (D + 1) / 2], the upper triangle row by row

128 features take 67 kB, 192 take 150 kB, 256 (the most that are kept) take 265 kB. Rounding to float32 would
halve that, and where there are fewer images than features fill directions in which these do not vary: a
distance of 70 digits moved by 1e-5. Torch is not imported here.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.numpy import save_file

from genbench.errors import UserError
from genbench.metrics.card import SHIPPED
from genbench.metrics.gaussians import Gaussian
from genbench.metrics.identity import digest_of

MOST_FEATURES = 256
"""Extractors of more features than these have no moments kept: Inception's would take 8 MB a run."""


def pack(found: Gaussian) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(mean, covariance) as the module says, of a Gaussian of either library."""
    covariance = np.asarray(found.covariance)
    return np.asarray(found.mean), covariance[_triangle(len(covariance))]


def unpack(n: int, mean: NDArray[np.float64], covariance: NDArray[np.float64]) -> Gaussian:
    """What n images have, from what `pack` made of it. Raises ValueError where the sizes do not fit."""
    size = len(mean)
    if covariance.shape != (size * (size + 1) // 2,):
        raise ValueError(
            f"{size} features have {size * (size + 1) // 2} covariances, found {len(covariance)}"
        )
    rows, columns = _triangle(size)
    square = np.empty((size, size))
    square[rows, columns] = square[columns, rows] = covariance
    return Gaussian(n, mean, square)


@cache
def _triangle(size: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Rows and columns of the upper triangle, each [size (size + 1) / 2]."""
    rows, columns = np.triu_indices(size)
    return rows, columns


def reference_path(name: str, folder: Path = SHIPPED) -> Path:
    """Where the moments of the training split lie that come with the extractor `name`."""
    return folder / f"{name}.reference.safetensors"


def write_reference(found: Gaussian, making: str, path: Path) -> None:
    """Keeps what a training split has and what they were made of (see `genbench.metrics.identity`)."""
    mean, covariance = pack(found)
    tensors = {"n": np.array([found.n]), "mean": mean, "covariance": covariance}
    save_file(tensors, path, metadata={"making": making})


@cache
def read_reference(path: Path) -> tuple[Gaussian, str]:
    """What real images have that `write_reference` wrote, and the digest that results record of them."""
    if not path.is_file():
        raise UserError(f"{path} is missing, though its extractor is there; reinstall genbench")
    with safe_open(path, framework="numpy") as stored:
        n, mean, covariance = (stored.get_tensor(name) for name in ("n", "mean", "covariance"))
        return unpack(int(n[0]), mean, covariance), digest_of(stored.metadata()["making"])
