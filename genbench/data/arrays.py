"""Images somebody brings to be scored: a folder or zip of pictures, or an npz of uint8 pixels."""

from __future__ import annotations

import lzma
import math
import struct
import tokenize
import zipfile
import zlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from genbench.data.folder import Folder
from genbench.errors import UserError, printable

ARRAY_NAMES = ("images", "arr_0", "samples")
"""What an npz may call its pixels: ours, numpy's own (which other suites write), and a common third."""

ARRAY_BYTES = 2**32
"""The most bytes of pixels that are taken from one npz: 1.4 million images of CIFAR-10's size."""

CHUNK = 1 << 20
"""Bytes that are unpacked at once."""

_HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}

_BROKEN = (
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    struct.error,
    OSError,
    EOFError,
    ValueError,
    SyntaxError,
    TypeError,
    NotImplementedError,
    RuntimeError,  # an encrypted entry; RecursionError is one
    tokenize.TokenError,
    MemoryError,  # so Python's parser says that a header is nested too deeply
)
"""What zipfile and numpy raise for files that are none of theirs."""


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
        with zipfile.ZipFile(path) as archive:
            pixels = _pixels(archive, path)
    except _BROKEN as error:
        reason = "nested too deeply" if isinstance(error, RecursionError | MemoryError) else error
        raise UserError(f"{path} cannot be read as an npz: {printable(str(reason))[:300]}") from error
    expected = (resolution, resolution, channels)
    if pixels.shape[1:] == expected:
        pixels = pixels.transpose(0, 3, 1, 2)
    elif pixels.shape[1:] != (channels, resolution, resolution):
        raise UserError(f"{path}: found images {pixels.shape[1:]}; this data set's are {expected} (H, W, C).")
    return torch.from_numpy(np.ascontiguousarray(pixels))


def _pixels(archive: zipfile.ZipFile, path: Path) -> np.ndarray:
    """The pixels of an npz. What its directory and header promise is compared before anything is unpacked."""
    names = [entry.filename for entry in archive.infolist()]
    if len(set(names)) < len(names):
        raise UserError(f"{path} holds several entries of one name; expected every name once.")
    name = next((f"{name}.npy" for name in ARRAY_NAMES if f"{name}.npy" in names), None)
    if name is None:
        found = ", ".join(each.removesuffix(".npy")[:80] for each in names[:10]) or "none"
        raise UserError(f"{path} has no array named {', '.join(ARRAY_NAMES)}; it has {printable(found)}.")
    entry = archive.getinfo(name)
    with archive.open(entry) as file:
        version = np.lib.format.read_magic(file)
        if version not in _HEADERS:
            raise ValueError(f"{name} has format {version}, expected 1.0 or 2.0")
        shape, by_columns, kind = _HEADERS[version](file)
        if kind != np.uint8 or len(shape) != 4 or min(shape) < 1:
            raise UserError(f"{path}: found {kind} {shape}; expected uint8 (N, H, W, C).".replace("\n", " "))
        size = math.prod(shape)
        if size > ARRAY_BYTES:
            raise UserError(f"{path}: {name} holds {size:,} bytes; at most {ARRAY_BYTES:,} are taken.")
        if entry.file_size != file.tell() + size:
            raise ValueError(f"{name} is {entry.file_size:,} bytes long, its header says {size:,} of pixels")
        pixels, filled = np.empty(size, np.uint8), 0
        while filled < size and (part := file.read(min(CHUNK, size - filled))):
            pixels[filled : filled + len(part)] = np.frombuffer(part, np.uint8)
            filled += len(part)
        file.read(1)  # the end, where the checksum is compared
        if filled < size:
            raise EOFError(f"{name} ends after {filled:,} of {size:,} bytes of pixels")
    return pixels.reshape(shape, order="F" if by_columns else "C")
