"""Samples in the forms that other suites read.

png   a folder of <number>.png and nothing else: clean-fid, pytorch-fid, torch-fidelity, EDM's `fid.py`
npz   uint8 [N, H, W, C] as `arr_0`, classes int64 [N], if any, as `arr_1`: guided-diffusion's evaluator

Pixels are written without loss, so that whoever reads them has what would be scored here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from genbench.data.arrays import ARRAY, LABELS
from genbench.harness import durable
from genbench.harness.sampling import Drawn


class Writer(Protocol):
    """Writes samples to a path without a suffix, and returns what it made of it."""

    def __call__(self, drawn: Iterable[Drawn], path: Path) -> Path: ...


def write_pngs(drawn: Iterable[Drawn], path: Path) -> Path:
    """A folder of PNG files, of which earlier ones go: what is found there was drawn together."""
    path.mkdir(parents=True, exist_ok=True)
    for earlier in path.glob("*.png"):
        earlier.unlink()
    for chunk in drawn:
        for index, image in zip(chunk.index.tolist(), chunk.images.cpu(), strict=True):
            pixels = image.permute(1, 2, 0).numpy()
            picture = Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
            picture.save(path / f"{index:06d}.png")
    return path


def write_npz(drawn: Iterable[Drawn], path: Path) -> Path:
    """<path>.npz, with classes where the samples have them."""
    chunks = [(chunk.images.cpu(), chunk.labels) for chunk in drawn]
    labels = [given.cpu() for _, given in chunks if given is not None]
    return save_npz(
        path.with_name(f"{path.name}.npz"),
        torch.cat([images for images, _ in chunks]),
        torch.cat(labels) if labels else None,
    )


def save_npz(path: Path, images: Tensor, labels: Tensor | None = None) -> Path:
    """Images uint8 [N, C, H, W], in the order of their numbers, and classes int64 [N], all or nothing."""
    # Row after row: that evaluator streams an array, and refuses one in the order of columns.
    arrays: dict[str, Any] = {ARRAY: np.ascontiguousarray(images.permute(0, 2, 3, 1).numpy())}
    if labels is not None:
        arrays[LABELS] = labels.numpy()
    with durable.replacing(path) as file:
        np.savez_compressed(file, **arrays)
    return path


FORMATS: Mapping[str, Writer] = {"png": write_pngs, "npz": write_npz}
"""What task=sample's `format` may be."""
