"""CelebA (Liu et al. 2015): 202,599 aligned faces of 178x218 pixels, cropped and resized, without labels.

Published figures differ by which square of the picture was kept, so the square is part of what is recorded:

    Window(x=89, y=109, size=140)     the central 140 pixels (NCSN, NCSNv2), the default
    Window(x=89, y=121, size=128)     DDIM's: dataset.source.crop.y=121 dataset.source.crop.size=128

JPEG libraries round differently by a grey level, so the set's hash may depend on Pillow's version, which
is recorded; a zip of the finished PNGs (`celeba-64x64.zip`) is exact anywhere.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from PIL import Image

from genbench.contracts import UserError
from genbench.data.cache import decode_or_reuse
from genbench.data.decoding import decoder_version
from genbench.data.pictures import Pictures, open_pictures
from genbench.data.published import Arrays, Published

_PARTITION = "list_eval_partition.txt"
_IMAGES = "img_align_celeba"
_SPLIT_NUMBERS = {"train": "0", "test": "2"}


@dataclass(frozen=True)
class Window:
    """The square of `size` pixels centred at column x, row y, resized by Pillow's antialiased bilinear
    filter.

    Columns x - size/2 up to, not including, x + size/2 (rounded down for odd sizes), and rows alike.
    """

    x: int
    y: int
    size: int
    slow = True

    def __call__(self, image: Image.Image, resolution: int, where: str) -> Image.Image:
        left, top = self.x - self.size // 2, self.y - self.size // 2
        box = (left, top, left + self.size, top + self.size)
        if left < 0 or top < 0 or box[2] > image.width or box[3] > image.height:
            raise UserError(
                f"{where} is {image.width}x{image.height} pixels (width x height), which do not contain the "
                f"{self}. Change dataset.source.crop."
            )
        return image.crop(box).resize((resolution, resolution), Image.Resampling.BILINEAR)

    def __str__(self) -> str:
        centre = f"(x={self.x}, y={self.y})"
        return f"{self.size}x{self.size} window centred at {centre}, bilinear (Pillow, antialiased)"


CENTRE = Window(x=89, y=109, size=140)
"""The central 140 pixels of a 178x218 image."""


@dataclass(frozen=True)
class CelebA(Published):
    """CelebA in torchvision's layout (`celeba/`), or finished in `celeba-<R>x<R>.zip`.

    The layout is read here and not by torchvision, which insists on four attribute files that are not used:
    what counts is `list_eval_partition.txt` (0 is train, 2 is test) and `img_align_celeba/` or, unpacked in
    memory, `img_align_celeba.zip`. Pictures are decoded once and kept under data_root.
    """

    crop: Window = CENTRE
    resolution: int = 64
    name: ClassVar[str] = "celeba"
    title: ClassVar[str] = "CelebA"
    channels: ClassVar[int] = 3
    classes: ClassVar[int] = 0
    counts: ClassVar[Mapping[str, int]] = {"train": 162_770, "test": 19_962}
    layout: ClassVar[str] = "celeba"
    download_size: ClassVar[str] = "1.4 GB"
    url: ClassVar[str] = "https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html"
    licence: ClassVar[str] = "non-commercial research only, see URL"

    def missing(self, data_root: Path, split: str) -> str | None:
        folder = data_root / self.layout
        if not (folder / _PARTITION).is_file():
            return f"{self.layout}/{_PARTITION}"
        if not (folder / _IMAGES).is_dir() and not (folder / f"{_IMAGES}.zip").is_file():
            return f"{self.layout}/{_IMAGES}"
        return None

    def read_layout(self, data_root: Path, split: str) -> Arrays:
        folder = data_root / self.layout
        files = read_partition(folder / _PARTITION, split)
        if (folder / _IMAGES).is_dir():
            pictures: Pictures = open_pictures(folder / _IMAGES)
            names = files
        else:
            pictures = open_pictures(folder / f"{_IMAGES}.zip")
            names = [f"{_IMAGES}/{file}" for file in files]
        there = set(pictures.names)
        absent = [name for name in names if name not in there]
        if absent:
            raise UserError(
                f"{pictures.path} lacks {absent[0]}, listed in {_PARTITION} ({len(absent):,} files missing)."
            )
        title = f"{self.name}-{split}"
        pixels = decode_or_reuse(pictures, names, self.channels, self.resolution, self.crop, data_root, title)
        return pixels, None

    def download(self, data_root: Path) -> None:
        from torchvision.datasets import CelebA as Torchvision

        Torchvision(str(data_root), download=True)

    def check_download(self, data_root: Path, split: str) -> None:
        super().check_download(data_root, split)
        if importlib.util.find_spec("gdown") is None:
            raise UserError(
                self._absent(data_root, split, "torchvision needs gdown for it (pip install gdown)")
            )

    def preparation(self) -> Mapping[str, str]:
        return {"crop": str(self.crop), "decoder": decoder_version()}

    def zip_preparation(self) -> Mapping[str, str]:
        return {"crop": "as prepared in the zip"}


def read_partition(file: Path, split: str) -> list[str]:
    """File names of a split from CelebA's list of `000001.jpg 0` lines; UserError naming a bad line."""
    names = []
    try:
        lines = file.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{file} could not be read: {error}.") from error
    for number, line in enumerate(lines, 1):
        parts = line.split()
        if len(parts) != 2 or parts[1] not in ("0", "1", "2"):
            raise UserError(f"{file}, line {number}: expected a file name and 0, 1 or 2, found {line!r}.")
        if parts[1] == _SPLIT_NUMBERS[split]:
            names.append(parts[0])
    return names
