"""Small collections of pictures to read: PNG bytes, and zips and folders of them."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image


def encode(pixels: np.ndarray, format: str = "PNG", **options: object) -> bytes:
    """uint8 [C, H, W] (C = 1, 3 or 4) as the bytes of a picture."""
    image = Image.fromarray(pixels.transpose(1, 2, 0).squeeze())
    stream = io.BytesIO()
    image.save(stream, format, **options)
    return stream.getvalue()


def random_images(count: int, channels: int = 3, resolution: int = 8, seed: int = 0) -> np.ndarray:
    """uint8 [N, C, R, R] of noise."""
    shape = (count, channels, resolution, resolution)
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def edm_files(images: np.ndarray, labels: np.ndarray | None) -> dict[str, bytes]:
    """The files of an EDM-style zip, by name."""
    files = {f"00000/img{number:08d}.png": encode(image) for number, image in enumerate(images)}
    pairs = (
        None if labels is None else [[name, int(label)] for name, label in zip(files, labels, strict=True)]
    )
    return files | {"dataset.json": json.dumps({"labels": pairs}).encode()}


def write_zip(path: Path, files: Mapping[str, bytes]) -> Path:
    """A zip of `files`, names taken as they are."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


def write_folder(path: Path, files: Mapping[str, bytes]) -> Path:
    """A folder of `files`."""
    for name, data in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(data)
    return path
