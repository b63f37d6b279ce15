"""The distance that samples would have to be moved: sliced Wasserstein-1 between two sets of vectors."""

from __future__ import annotations

import torch
from torch import Tensor

DIRECTIONS = 64
"""How many directions vectors of more than one dimension are looked at from."""


def sliced_wasserstein(p: Tensor, q: Tensor, directions: int = DIRECTIONS) -> float:
    """W1 of projections to one dimension, mean over fixed random directions; in the units of the data.

    p: [N, ...], q: [k N, ...] with k >= 1 whole; in one dimension this is W1 itself, exactly. Sorted
    projections are matched in order, k of q to each of p, which is the best transport on a line (Rabin et al.
    2012). Raises ValueError for other sizes.
    """
    n = len(p)
    if not n or len(q) % n:
        raise ValueError(f"{len(q)} vectors are no whole multiple of {n}")
    p, q = p.double().flatten(1), q.double().flatten(1)
    dimension = p.shape[1]
    generator = torch.Generator().manual_seed(0)
    axes = torch.randn(
        dimension, directions if dimension > 1 else 1, dtype=torch.float64, generator=generator
    )
    axes = (axes / axes.norm(dim=0)).to(p.device)
    gaps = []
    for axis in axes.unbind(1):
        along_p, along_q = (p @ axis).sort().values, (q @ axis).sort().values
        gaps.append((along_p[:, None] - along_q.reshape(n, -1)).abs().mean())
    return float(torch.stack(gaps).mean())
