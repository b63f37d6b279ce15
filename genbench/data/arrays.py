"""Images somebody brings to be scored: a folder or zip of pictures, or an npz of uint8 pixels."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from genbench.contracts import UserError
from genbench.data.folder import Folder

ARRAY_NAMES = ("images", "arr_0", "samples")
"""What an npz may call its pixels: ours, numpy's own (which other suites write), and a common third."""


def load_images(path: Path, channels: int, resolution: int, data_root: Path) -> Tensor:
    """uint8 [N, C, H, W] from a folder, a zip, or an npz whose array is uint8 [N, H, W, C] or [N, C, H, W].

    Raises UserError naming the file where it is missing, unreadable or of another size. Nothing is unpickled.
    """
    if not path.exists():
        raise UserError(f"images={path} does not exist.")
    if path.is_file() and path.suffix not in (".npz", ".zip"):
        raise UserError(f"images={path} is neither a folder nor a .zip nor a .npz.")
    if path.suffix == ".npz":
        return _from_npz(path, channels, resolution)
    return Folder(str(path), resolution, channels, name=path.stem or "images").load(data_root, "train").images


def _from_npz(path: Path, channels: int, resolution: int) -> Tensor:
    try:
        with np.load(path, allow_pickle=False) as arrays:
            name = next((name for name in ARRAY_NAMES if name in arrays.files), None)
            if name is None:
                found = ", ".join(arrays.files) or "none"
                raise UserError(f"{path} has no array named {', '.join(ARRAY_NAMES)}; it has {found}.")
            pixels = arrays[name]
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise UserError(f"{path} cannot be read as an npz: {error}") from error
    expected = (resolution, resolution, channels)
    if pixels.dtype != np.uint8 or pixels.ndim != 4 or len(pixels) == 0:
        raise UserError(f"{path}: found {pixels.dtype} {pixels.shape}; expected uint8 (N, {expected}).")
    if pixels.shape[1:] == expected:
        pixels = pixels.transpose(0, 3, 1, 2)
    elif pixels.shape[1:] != (channels, resolution, resolution):
        raise UserError(f"{path}: found images {pixels.shape[1:]}; this data set's are {expected} (H, W, C).")
    return torch.from_numpy(np.ascontiguousarray(pixels))
