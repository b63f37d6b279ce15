"""Randomness as a function: a seed for every purpose, derived from what identifies it.

Nothing about random state is saved in checkpoints. Before each phase torch's generators are seeded from
(seed, step, phase, repeat, rank), so a resumed run draws what an uninterrupted one would have drawn.
"""

from __future__ import annotations

import hashlib

import torch


def derive_seed(*parts: int | str) -> int:
    """A seed in [0, 2^63) that depends on every part; equal parts give equal seeds on every machine."""
    text = "\x1f".join(f"{type(part).__name__}:{part}" for part in parts)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def seed_torch(*parts: int | str) -> None:
    """Seeds torch's CPU and CUDA generators from `parts`."""
    torch.manual_seed(derive_seed(*parts))
