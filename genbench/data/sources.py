"""Where the published data sets come from, and the contract every source of images keeps.

A published set is looked for under `data_root` in three places, in this order:

1. torchvision's layout, as its data sets leave it (`cifar-10-batches-py/`, `MNIST/raw/`, ...);
2. a zip in EDM's layout: `<name>-<R>x<R>.zip` for training, `<name>-test-<R>x<R>.zip` for the test split,
   holding PNGs and their labels in `dataset.json`;
3. torchvision's download into `data_root`, in layout 1.

All three give the identical ImageSet. Only torchvision unpickles anything (CIFAR-10's batches), after it has
compared their MD5 with the published ones.
"""

from __future__ import annotations

import http.client
import importlib.util
import lzma
import os
import socket
import tarfile
import zipfile
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar, Protocol

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


class Source(Protocol):
    """Images of a data set, by split ("train" or "test")."""

    def locate(self, data_root: Path, split: str) -> str:
        """One line saying where the split will be read from; quick, nothing is decoded.

        Raises UserError where it is neither there nor to be had, or is visibly broken.
        """

    def load(self, data_root: Path, split: str) -> ImageSet:
        """The split, decoded. Raises UserError, naming the file, where anything is not as promised."""


class Digits:
    """scikit-learn's digits: 1,797 handwritten digits, 8x8, 17 grey levels, installed with the library.

    A level v in 0..16 is stored as round(v * 255 / 16), from which round(x / 255 * 16) recovers it. The last 360
    images are the test split (they are by writers who wrote none of the others).
    """

    name = "digits"
    url = "https://archive.ics.uci.edu/dataset/80/optical+recognition+of+handwritten+digits"
    licence = "CC BY 4.0"
    test_size: ClassVar[int] = 360
    levels: ClassVar[int] = 17

    def locate(self, data_root: Path, split: str) -> str:
        check_split(split)
        if importlib.util.find_spec("sklearn") is None:
            raise UserError("dataset=digits comes with scikit-learn; type: pip install scikit-learn")
        return f"digits ({split}): shipped with scikit-learn, nothing to download"

    def load(self, data_root: Path, split: str) -> ImageSet:
        self.locate(data_root, split)
        import sklearn
        from sklearn.datasets import load_digits

        bunch = load_digits()
        part = slice(-self.test_size, None) if split == "test" else slice(None, -self.test_size)
        pixels = np.rint(bunch.images[part, None] * (255 / (self.levels - 1))).astype(np.uint8)
        return canonical(
            self.name,
            split,
            pixels,
            bunch.target[part],
            classes=10,
            levels=self.levels,
            provenance={
                "source": f"scikit-learn {sklearn.__version__} load_digits",
                "url": self.url,
                "licence": self.licence,
            },
        )


class Published(ABC):
    """A published data set in one of the three places of the module docstring.

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
            raise UserError(self._absent(data_root, split, str(error).strip() or repr(error))) from error
        lacking = self.missing(data_root, split)
        if lacking is not None:
            raise UserError(self._absent(data_root, split, f"{lacking} is still missing"))

    def _absent(self, data_root: Path, split: str, reason: str) -> str:
        return (
            f"{self.title} ({split}) is not in {data_root} and could not be downloaded: {reason}\n"
            f"Looked for {self.missing(data_root, split)} (torchvision's layout) and "
            f"{self.zip_path(data_root, split).name} (PNGs and dataset.json).\n"
            f"Put either there, or name the folder that has them with data_root=DIR or the environment's GENBENCH_DATA."
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
                f"{where} holds {found:,} images; the {split} split of {self.title} has {self.counts[split]:,}. "
                f"For a set of your own type dataset=folder dataset.path={where}"
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
        if labels is not None and not (0 <= labels.min() and labels.max() < self.classes):
            raise UserError(
                f"{where} holds labels from {labels.min()} to {labels.max()}; expected 0 to {self.classes - 1}."
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


class CIFAR10(Published):
    """CIFAR-10 (Krizhevsky 2009): 32x32 colour photographs in ten classes, 50,000 + 10,000."""

    name = "cifar10"
    title = "CIFAR-10"
    channels = 3
    resolution = 32
    classes = 10
    counts: ClassVar[Mapping[str, int]] = {"train": 50_000, "test": 10_000}
    layout = "cifar-10-batches-py"
    download_size = "170 MB"
    url = "https://www.cs.toronto.edu/~kriz/cifar.html"
    licence = "see URL"
    files: ClassVar[tuple[str, ...]] = (
        *(f"data_batch_{number}" for number in range(1, 6)),
        "test_batch",
        "batches.meta",
    )

    def missing(self, data_root: Path, split: str) -> str | None:
        return _first_missing(data_root, self.layout, self.files)

    def read_layout(self, data_root: Path, split: str) -> Arrays:
        from torchvision.datasets import CIFAR10 as Torchvision

        try:
            stored = Torchvision(str(data_root), train=split == "train", download=False)
        except RuntimeError as error:
            raise UserError(
                f"{data_root / self.layout} is damaged: its files do not have the published MD5 sums. "
                f"Delete the folder to have it downloaded again."
            ) from error
        return stored.data.transpose(0, 3, 1, 2), np.asarray(stored.targets)

    def download(self, data_root: Path) -> None:
        from torchvision.datasets import CIFAR10 as Torchvision

        Torchvision(str(data_root), download=True)


class MNIST(Published):
    """MNIST (LeCun et al. 1998): 28x28 handwritten digits, 60,000 + 10,000, in the IDX format."""

    name = "mnist"
    title = "MNIST"
    channels = 1
    resolution = 28
    classes = 10
    counts: ClassVar[Mapping[str, int]] = {"train": 60_000, "test": 10_000}
    layout = "MNIST/raw"
    download_size = "12 MB"
    url = "https://yann.lecun.com/exdb/mnist/"
    licence = "see URL"
    prefixes: ClassVar[Mapping[str, str]] = {"train": "train", "test": "t10k"}

    def files(self, split: str) -> tuple[str, str]:
        """The files of images and of labels."""
        prefix = self.prefixes[split]
        return f"{prefix}-images-idx3-ubyte", f"{prefix}-labels-idx1-ubyte"

    def missing(self, data_root: Path, split: str) -> str | None:
        return _first_missing(data_root, self.layout, self.files(split))

    def read_layout(self, data_root: Path, split: str) -> Arrays:
        images, labels = (data_root / self.layout / file for file in self.files(split))
        return read_idx(images, dimensions=3)[:, None], read_idx(labels, dimensions=1)

    def download(self, data_root: Path) -> None:
        from torchvision.datasets import MNIST as Torchvision

        Torchvision(str(data_root), download=True)


class FashionMNIST(MNIST):
    """Fashion-MNIST (Xiao et al. 2017): 28x28 pictures of clothes, in MNIST's form."""

    name = "fashion_mnist"
    title = "Fashion-MNIST"
    layout = "FashionMNIST/raw"
    download_size = "31 MB"
    url = "https://github.com/zalandoresearch/fashion-mnist"
    licence = "MIT"

    def download(self, data_root: Path) -> None:
        from torchvision.datasets import FashionMNIST as Torchvision

        Torchvision(str(data_root), download=True)


def _first_missing(data_root: Path, layout: str, files: tuple[str, ...]) -> str | None:
    """layout/file of the first of `files` that is not under data_root, or None."""
    return next((f"{layout}/{file}" for file in files if not (data_root / layout / file).is_file()), None)


def read_idx(file: Path, dimensions: int) -> np.ndarray:
    """A uint8 array of an IDX file: big-endian (0, 0, 8, dimensions), the sizes as 32 bits each, then the bytes.

    Raises UserError naming the file where it is not that, or its length is not what its sizes say.
    """
    try:
        data = file.read_bytes()
    except OSError as error:
        raise UserError(f"{file} could not be read: {error.strerror or error}.") from error
    header = 4 + 4 * dimensions
    if len(data) < header or data[:4] != bytes((0, 0, 8, dimensions)):
        raise UserError(
            f"{file} is not an IDX file of bytes in {dimensions} dimension(s); delete it to have it "
            f"downloaded again."
        )
    shape = tuple(int(size) for size in np.frombuffer(data, ">u4", dimensions, offset=4))
    if len(data) - header != np.prod(shape, dtype=object):
        raise UserError(
            f"{file} holds {len(data) - header:,} bytes for sizes {shape}; it is truncated or not the file it "
            f"says it is. Delete it to have it downloaded again."
        )
    return np.frombuffer(data, np.uint8, offset=header).reshape(shape)
