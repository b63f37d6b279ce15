"""From encoded pictures to uint8 [N, C, H, W], refusing by name whatever is not as it should be.

A *preparation* says what may be done to a picture on the way: nothing (`Exact`), or cropping and resizing
(`Resized`, and CelebA's window). Colour is never converted: a grey image among colour ones, an alpha channel
or 16 bits a pixel are refused, because every silent conversion changes what a model is scored against.
"""

from __future__ import annotations

import io
import os
import struct
import zlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import PIL
from PIL import Image, features
from tqdm import tqdm

from genbench.contracts import UserError
from genbench.data.pictures import Pictures

MAX_PIXELS = 2**26
"""The most pixels (height times width) a picture may have before it is decoded: 8192 x 8192."""

_FORMATS = ("PNG", "JPEG", "WEBP")
_MODES = {1: "L", 3: "RGB"}
_BROKEN = (OSError, SyntaxError, ValueError, EOFError, IndexError, TypeError, struct.error, zlib.error)
_CHUNK = 256


class Preparation(Protocol):
    """What is done to a decoded picture before it becomes an array."""

    @property
    def slow(self) -> bool:
        """Whether pictures are larger than what is kept of them, so that threads and a cache pay."""

    def __call__(self, image: Image.Image, resolution: int, where: str) -> Image.Image:
        """The picture at resolution x resolution. Raises UserError naming `where` if it cannot be."""

    def __str__(self) -> str:
        """What it does, for the record; two preparations that differ read differently."""


@dataclass(frozen=True)
class Exact:
    """Pictures are taken as they are; another size is refused with what to do about it.

    advice: how the user can have pictures of another size, appended to the refusal.
    """

    advice: str = ""
    slow = False

    def __call__(self, image: Image.Image, resolution: int, where: str) -> Image.Image:
        if image.size != (resolution, resolution):
            width, height = image.size
            raise UserError(
                f"{where} is {width}x{height} pixels (width x height); expected {resolution}x{resolution}."
                f"{self.advice}"
            )
        return image

    def __str__(self) -> str:
        return "as it is"


@dataclass(frozen=True)
class Resized:
    """The largest centred square of a picture, resized with Pillow's antialiased bicubic filter."""

    slow = True

    def __call__(self, image: Image.Image, resolution: int, where: str) -> Image.Image:
        side = min(image.size)
        left, top = (image.width - side) // 2, (image.height - side) // 2
        box = (left, top, left + side, top + side)
        return image.resize((resolution, resolution), Image.Resampling.BICUBIC, box=box)

    def __str__(self) -> str:
        return "centred square, bicubic (Pillow, antialiased)"


def decoder_version() -> str:
    """The versions of Pillow and of its JPEG library: with another one, JPEGs may decode to other levels."""
    turbo = features.version("libjpeg_turbo")
    jpeg = f"libjpeg-turbo {turbo}" if turbo else f"libjpeg {features.version('jpg')}"
    return f"Pillow {PIL.__version__}, {jpeg}"


def decode(data: bytes, channels: int, resolution: int, preparation: Preparation, where: str) -> np.ndarray:
    """One picture as uint8 [C, resolution, resolution].

    Raises UserError naming `where` if it is not a PNG, JPEG or WebP, is damaged or truncated, has other
    channels than asked for, or more than `MAX_PIXELS` pixels (checked before its pixels are unpacked).
    """
    try:
        image = Image.open(io.BytesIO(data), formats=_FORMATS)
    except Image.DecompressionBombError as error:
        raise UserError(f"{where} is far too large: {error}.") from error
    except _BROKEN as error:
        reason = "no such picture" if isinstance(error, PIL.UnidentifiedImageError) else error
        raise UserError(f"{where} is not a readable PNG, JPEG or WebP image ({reason}).") from error
    if image.width * image.height > MAX_PIXELS:
        raise UserError(
            f"{where} has {image.width}x{image.height} pixels; at most {MAX_PIXELS:,} are decoded."
        )
    if image.mode != _MODES[channels]:
        raise UserError(
            f"{where} has {len(image.getbands())} channel(s) (Pillow's mode {image.mode}); "
            f"expected {channels} of 8 bits (mode {_MODES[channels]})."
        )
    try:
        image.load()
    except _BROKEN as error:
        raise UserError(f"{where} is damaged or truncated ({error}).") from error
    prepared = preparation(image, resolution, where)
    pixels = np.frombuffer(prepared.tobytes(), np.uint8).reshape(resolution, resolution, channels)
    return pixels.transpose(2, 0, 1)


def decode_all(
    pictures: Pictures, names: Sequence[str], channels: int, resolution: int, preparation: Preparation
) -> np.ndarray:
    """uint8 [N, C, resolution, resolution]: the pictures `names` of a folder or zip, in that order.

    Raises UserError as `decode` does, for the first bad picture in order; ValueError if channels is not 1 or
    3.
    """
    if channels not in _MODES:
        raise ValueError(f"{channels} channels; images have 1 or 3")
    pixels = np.empty((len(names), channels, resolution, resolution), np.uint8)

    def decode_chunk(start: int) -> int:
        chunk = names[start : start + _CHUNK]
        for position, name in enumerate(chunk, start):
            where = f"{name} in {pictures.path}"
            pixels[position] = decode(pictures.read(name), channels, resolution, preparation, where)
        return len(chunk)

    # Pillow lets other threads run while it unpacks, which pays for photographs. A 32x32 PNG is mostly
    # Python, and threads that queue for the interpreter made 50,000 of them slower: 2.8 s with one, 3.2 s
    # with four.
    workers = (os.cpu_count() or 1) if preparation.slow or resolution > 32 else 1
    with (
        ThreadPoolExecutor(workers) as pool,
        tqdm(
            total=len(names), desc=f"decoding {pictures.path.name}", unit="image", delay=3, disable=None
        ) as bar,
    ):
        try:
            for done in pool.map(decode_chunk, range(0, len(names), _CHUNK)):
                bar.update(done)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return pixels
