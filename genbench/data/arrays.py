"""Images somebody brings to be scored: a folder or zip of pictures, or an array of pixels in an npz or npy.

What is brought is taken as it is or refused by name. Two things no file says are never guessed: which values
of a float array are black and white, and which of several arrays holds the images. Nothing is unpickled.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from genbench.data import npy
from genbench.data.cache import decode_or_reuse
from genbench.data.decoding import Exact
from genbench.data.images import canonical
from genbench.data.labels import labels_of, read_labels
from genbench.data.pictures import open_pictures
from genbench.errors import UserError, printable
from genbench.ops.quantize import quantize

ARRAY = "arr_0"
"""What the pixels of a samples.npz are called: `numpy.savez(file, pixels)` names them so, and that name is
read by the evaluator of guided-diffusion (Dhariwal & Nichol 2021)."""
LABELS = "arr_1"
"""What it calls their classes, int64 [N]."""
ARRAY_NAMES = (ARRAY, "images", "samples")
"""What an npz of several arrays may call its pixels."""

OVERSHOOT = 0.5
"""By how much of a range's width values may lie beyond it and be clipped. A sampler that does not clip
overshoots by less; another range (0 ... 255 where 0 ... 1 was typed) by more."""

_ADVICE = " Resize them all by one filter before they are scored, and say which: scores depend on it."
_CHUNK = 1024


@dataclass(frozen=True)
class Brought:
    """Images to score: uint8 [N, C, H, W], a line on what they were found to be, and the classes they were
    drawn for, int64 [N], where these came with them.
    """

    images: Tensor
    found: str
    labels: Tensor | None = None


def load_images(
    path: Path,
    channels: int,
    resolution: int,
    data_root: Path,
    levels: Sequence[float] | None = None,
    most: int = npy.MOST_BYTES,
    classes: int = 0,
) -> Brought:
    """The images at `path`, each [channels, resolution, resolution].

    A folder (however deep) or zip of PNG, JPEG or WebP pictures; an npz of one array, or of several of which
    one has a name of `ARRAY_NAMES`; an npy. Arrays are [N, H, W, C], [N, C, H, W] or, where images have one
    channel, [N, H, W]. levels: the values that are black and white, for arrays that are not uint8; pixels
    between are quantised as samples are, those beyond clipped. data_root: where large decoded collections
    are kept. most: the bytes an array may have. classes: how many there are, 0 where nobody asks; else the
    classes that come with the images are read: `LABELS` beside `ARRAY`, int [N], or a dataset.json beside
    pictures (see `genbench.data.labels`). Raises UserError, naming the file, where it is missing, unreadable,
    or anything else than this.
    """
    path = path.expanduser()
    if not path.exists():
        raise UserError(f"images={path} does not exist.")
    if path.is_file() and path.suffix not in (".npz", ".npy", ".zip"):
        raise UserError(
            f"images={path} is neither a folder nor a .zip, .npz or .npy file. Of an array, "
            "numpy.save('images.npy', array) makes one."
        )
    if path.is_dir() or path.suffix == ".zip":
        if levels is not None:
            raise UserError(f"images_range={list(levels)} is for arrays; the pictures of {path} have 8 bits.")
        return _pictures(path, channels, resolution, data_root, classes)
    held: list[str] = []

    def choose(names: Sequence[str]) -> str:
        held.extend(names)
        return _chosen(names, path)

    name, pixels = npy.read(path, choose, most)
    labelled = classes > 0 and name == ARRAY and LABELS in held
    labels = _labels(path, len(pixels), classes, most) if labelled else None
    where = f"{path} ({name})" if name else str(path)
    ordered, layout = _channels_first(pixels, channels, resolution, where)
    images, said = _quantised(ordered, levels, where)
    return Brought(torch.from_numpy(images), f"{name or 'an array'} {layout}, {said}{_with(labels)}", labels)


def _with(labels: Tensor | None) -> str:
    return "" if labels is None else ", with classes"


def _pictures(path: Path, channels: int, resolution: int, data_root: Path, classes: int) -> Brought:
    pictures = open_pictures(path)
    names = pictures.names
    if not names:
        raise UserError(f"images={path} holds no PNG, JPEG or WebP picture.")
    title = path.stem or "images"
    pixels = decode_or_reuse(pictures, names, channels, resolution, Exact(_ADVICE), data_root, title)
    # In an order without regard to names: the first n of a collection sorted by class are no sample of it.
    try:
        said = read_labels(pictures, classes) if classes else None
    except UserError as error:
        raise UserError(f"{error} Without that file the images are scored without classes.") from error
    given = None if said is None else labels_of(names, said)
    mixed = canonical(
        title, "train", pixels, given, classes=0 if given is None else classes, levels=256, provenance={}
    )
    return Brought(mixed.images, f"{len(names):,} pictures{_with(mixed.labels)}", mixed.labels)


def _labels(path: Path, count: int, classes: int, most: int) -> Tensor:
    """The classes that lie beside the pixels of an npz, int64 [count]."""
    _, found = npy.read(path, lambda names: LABELS, most)
    advice = (
        f"numpy.savez('images.npz', pixels) leaves {LABELS} out, and the images are scored without classes."
    )
    if found.dtype.kind not in "iu" or found.shape != (count,):
        raise UserError(
            f"{path} ({LABELS}): found {found.dtype} {list(found.shape)}; expected the images' classes, "
            f"integers [{count}]. {advice}"
        )
    least, largest = int(found.min()), int(found.max())
    if least < 0 or largest >= classes:
        raise UserError(
            f"{path} ({LABELS}): found classes from {least} to {largest}; expected 0 to {classes - 1}. "
            f"{advice}"
        )
    return torch.from_numpy(found.astype(np.int64))


def _chosen(names: Sequence[str], path: Path) -> str:
    """Which array of an npz holds the images."""
    known = [name for name in ARRAY_NAMES if name in names]
    if len(known) == 1:
        return known[0]
    if len(names) == 1:
        return names[0]
    found = printable(", ".join(each[:80] for each in names[:10])) or "none"
    raise UserError(
        f"{path} has the arrays {found}; expected one, or one of several named {', '.join(ARRAY_NAMES)}. "
        f"numpy.savez('images.npz', pixels) makes such a file."
    )


def _channels_first(pixels: np.ndarray, channels: int, resolution: int, where: str) -> tuple[np.ndarray, str]:
    """A view [N, C, H, W] of the array, and what its own axes are called."""
    side = resolution
    shapes = {"NHWC": (side, side, channels), "NCHW": (channels, side, side)}
    flat = channels == 1 and pixels.ndim == 3
    shape = (*pixels.shape[1:], 1) if flat else pixels.shape[1:]
    layout = next((axes for axes, expected in shapes.items() if shape == expected), None)
    if layout is None or len(pixels) == 0:
        expected = " or ".join(f"[N, {', '.join(map(str, each))}]" for each in shapes.values())
        raise UserError(f"{where}: found {pixels.dtype} {list(pixels.shape)}; expected {expected}.")
    whole = pixels.reshape(len(pixels), *shape)
    return (whole.transpose(0, 3, 1, 2), "NHW" if flat else layout) if layout == "NHWC" else (whole, layout)


def _quantised(pixels: np.ndarray, levels: Sequence[float] | None, where: str) -> tuple[np.ndarray, str]:
    """uint8 [N, C, H, W], contiguous, and how it came about."""
    if levels is None and pixels.dtype == np.uint8:
        return np.ascontiguousarray(pixels), "uint8"
    if pixels.dtype.kind not in "biuf":
        raise UserError(
            f"{where}: found {pixels.dtype}; expected uint8, or other numbers with images_range=."
        )
    least, most = float(pixels.min()), float(pixels.max())
    found = f"{pixels.dtype} from {least:.4g} to {most:.4g}"
    if not np.isfinite((least, most)).all():
        raise UserError(f"{where}: found {found}; NaN and infinity have no grey level.")
    if levels is None:
        raise UserError(
            f"{where}: found {found}; expected uint8. Which value is black and which white is not guessed: "
            "type images_range=[-1,1], images_range=[0,1] or images_range=[0,255]."
        )
    black, white = levels
    slack = OVERSHOOT * (white - black)
    if least < black - slack or most > white + slack:
        raise UserError(
            f"{where}: found {found}, far beyond images_range=[{black:g},{white:g}]. Type the range they "
            "have, or clip them first where those values are stray."
        )
    # Narrow floats are not widened beyond float32, so that what is in [-1, 1] meets the quantiser as our own
    # samples do.
    working = np.float32 if pixels.dtype.kind == "f" and pixels.dtype.itemsize <= 4 else np.float64
    grey: np.ndarray = np.empty(pixels.shape, np.uint8)
    scale, beyond = 2 / (white - black), 0
    for start in range(0, len(pixels), _CHUNK):
        part: Any = pixels[start : start + _CHUNK].astype(working)
        beyond += int(((part < black) | (part > white)).sum())
        scaled = torch.from_numpy(part).mul_(scale).add_(-1 - black * scale)
        grey[start : start + _CHUNK] = quantize(scaled).numpy()
    clipped = f", {beyond / pixels.size:.2%} of them beyond and clipped" if beyond else ""
    return grey, f"{found} in [{black:g}, {white:g}]{clipped}"
