"""A published data set: the places it is looked for, and what it must then be.

Under `data_root`, in this order:

1. torchvision's layout, as its data sets leave it (`cifar-10-batches-py/`, `MNIST/raw/`, ...);
2. a zip in EDM's layout: `<name>-<R>x<R>.zip` for training, `<name>-test-<R>x<R>.zip` for the test split,
   holding PNGs and their labels in `dataset.json`;
3. torchvision's download into `data_root`, in layout 1.

All three give the identical ImageSet. What torchvision would say of a failure comes from many libraries; it
is turned into one message with what was looked for, where, and what to put there.
"""

from __future__ import annotations

import contextlib
import http.client
import lzma
import os
import socket
import tarfile
import zipfile
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar

import numpy as np

from genbench.contracts import UserError
from genbench.data.cache import decode_or_reuse
from genbench.data.decoding import Exact
from genbench.data.images import ImageSet, canonical, check_split
from genbench.data.labels import labels_of, read_labels
from genbench.data.pictures import ZipOfPictures

Arrays = tuple[np.ndarray, np.ndarray | None]
"""Pixels, uint8 [N, C, H, W], and labels, integers [N], or None."""

_DOWNLOAD_TIMEOUT = 30.0
"""Seconds without a byte after which a download is given up; torchvision itself would wait for ever."""

_DOWNLOAD_ERRORS = (
    OSError,  # no network, refused, disk full (URLError is one)
    RuntimeError,  # torchvision: wrong checksum, every mirror failed, no gdown
    RecursionError,
    ImportError,
    EOFError,
    ValueError,
    http.client.HTTPException,
    tarfile.TarError,
    zipfile.BadZipFile,
    lzma.LZMAError,
)


class Published(ABC):
    """A published data set in one of the three places above.

    Subclasses promise the facts below; what is read is held against them.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    channels: ClassVar[int]
    resolution: int
    classes: ClassVar[int]
    counts: ClassVar[Mapping[str, int]]
    """How many images each split has."""
    layout: ClassVar[str]
    """The folder of torchvision's layout, relative to data_root."""
    download_size: ClassVar[str]
    url: ClassVar[str]
    licence: ClassVar[str]

    @abstractmethod
    def missing(self, data_root: Path, split: str) -> str | None:
        """The first file that torchvision's layout lacks for `split`, or None where it is complete."""

    @abstractmethod
    def read_layout(self, data_root: Path, split: str) -> Arrays:
        """Pixels and labels of a complete layout. Raises UserError naming what is damaged."""

    @abstractmethod
    def download(self, data_root: Path) -> None:
        """Has torchvision complete the layout; raises whatever torchvision raises."""

    def zip_path(self, data_root: Path, split: str) -> Path:
        """Where the EDM-style zip of a split is looked for."""
        part = {"train": "", "test": "-test"}[split]
        return data_root / f"{self.name}{part}-{self.resolution}x{self.resolution}.zip"

    def present(self, data_root: Path, split: str) -> bool:
        return self.missing(data_root, split) is None or self.zip_path(data_root, split).exists()

    def locate(self, data_root: Path, split: str) -> str:
        check_split(split)
        if self.missing(data_root, split) is None:
            return f"{self.title} ({split}): torchvision's layout in {data_root / self.layout}"
        file = self.zip_path(data_root, split)
        if file.exists():
            return f"{self.title} ({split}): {len(ZipOfPictures(file).names):,} images in {file}"
        self.check_download(data_root, split)
        return (
            f"{self.title} ({split}): will be downloaded by torchvision ({self.download_size}) to {data_root}"
        )

    def load(self, data_root: Path, split: str) -> ImageSet:
        check_split(split)
        file = self.zip_path(data_root, split)
        if self.missing(data_root, split) is not None and file.exists():
            pixels, labels = self._read_zip(file, data_root, split)
            return self._finish(
                pixels, labels, split, f"EDM zip {file.name}", str(file), self.zip_preparation()
            )
        if self.missing(data_root, split) is not None:
            self._download(data_root, split)
        where = data_root / self.layout
        pixels, labels = self.read_layout(data_root, split)
        return self._finish(
            pixels, labels, split, f"torchvision's layout {self.layout}", str(where), self.preparation()
        )

    def preparation(self) -> Mapping[str, str]:
        """For the record: what was done to the pictures of torchvision's layout; nothing by default."""
        return {}

    def zip_preparation(self) -> Mapping[str, str]:
        """For the record: what is known to have been done to the pictures of the zip."""
        return {}

    def check_download(self, data_root: Path, split: str) -> None:
        """Raises UserError where it is already plain that a download cannot succeed."""
        existing = next(folder for folder in (data_root, *data_root.parents) if folder.exists())
        if not existing.is_dir() or not os.access(existing, os.W_OK):
            raise UserError(self._absent(data_root, split, f"{existing} is not a folder one can write to"))

    def _download(self, data_root: Path, split: str) -> None:
        self.check_download(data_root, split)
        try:
            data_root.mkdir(parents=True, exist_ok=True)
            with _no_endless_wait():
                self.download(data_root)
        except _DOWNLOAD_ERRORS as error:
            with contextlib.suppress(OSError):  # a folder made for nothing; one with files in it stays
                data_root.rmdir()
            raise UserError(self._absent(data_root, split, str(error).strip() or repr(error))) from error
        lacking = self.missing(data_root, split)
        if lacking is not None:
            raise UserError(self._absent(data_root, split, f"{lacking} is still missing"))

    def _absent(self, data_root: Path, split: str, reason: str) -> str:
        return (
            f"{self.title} ({split}) is not in {data_root} and could not be downloaded: {reason}\n"
            f"Looked for {self.missing(data_root, split)} (torchvision's layout) and "
            f"{self.zip_path(data_root, split).name} (PNGs and dataset.json).\n"
            f"Put either there, or name the folder that has them: data_root=DIR, or GENBENCH_DATA=DIR in the "
            f"environment."
        )

    def _read_zip(self, file: Path, data_root: Path, split: str) -> Arrays:
        pictures = ZipOfPictures(file)
        names = list(pictures.names)
        labels = read_labels(pictures, self.classes) if self.classes else None
        if self.classes and labels is None:
            raise UserError(f"{file} has no labels; expected them in its dataset.json.")
        self._check_count(len(names), split, str(file))
        pixels = decode_or_reuse(
            pictures, names, self.channels, self.resolution, Exact(), data_root, f"{self.name}-{split}"
        )
        return pixels, None if labels is None else labels_of(names, labels)

    def _check_count(self, found: int, split: str, where: str) -> None:
        if found != self.counts[split]:
            raise UserError(
                f"{where} holds {found:,} images; the {split} split of {self.title} has "
                f"{self.counts[split]:,}. For a set of your own type dataset=folder dataset.path={where}"
            )

    def _finish(
        self,
        pixels: np.ndarray,
        labels: np.ndarray | None,
        split: str,
        source: str,
        where: str,
        preparation: Mapping[str, str],
    ) -> ImageSet:
        """The ImageSet, once shape, count and labels have been held against what the class promises."""
        self._check_count(len(pixels), split, where)
        expected = (self.channels, self.resolution, self.resolution)
        if pixels.shape[1:] != expected:
            raise UserError(
                f"{where} holds images of shape {pixels.shape[1:]} (C, H, W); expected {expected}."
            )
        if labels is not None and len(labels) != len(pixels):
            raise UserError(f"{where} holds {len(labels):,} labels for {len(pixels):,} images.")
        if labels is not None and (labels.min() < 0 or labels.max() >= self.classes):
            raise UserError(
                f"{where} holds labels from {labels.min()} to {labels.max()}; "
                f"expected 0 to {self.classes - 1}."
            )
        return canonical(
            self.name,
            split,
            pixels,
            labels,
            classes=self.classes,
            levels=256,
            provenance={"source": source, "url": self.url, "licence": self.licence, **preparation},
        )


@contextmanager
def _no_endless_wait() -> Iterator[None]:
    """Gives sockets opened inside a timeout: torchvision sets none."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(_DOWNLOAD_TIMEOUT)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
