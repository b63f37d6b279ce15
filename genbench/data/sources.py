"""Sources of images: the contract, scikit-learn's digits, and the published sets of the MNIST and CIFAR kind.

A source is what conf/dataset names; CelebA and a user's own folder have files of their own (`celeba`,
`folder`). Only torchvision unpickles anything here (CIFAR-10's batches), after comparing their MD5 sums with
the published ones.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar, Protocol

import numpy as np

from genbench.contracts import UserError
from genbench.data.images import ImageSet, canonical, check_split
from genbench.data.published import Arrays, Published


class Source(Protocol):
    """Images of a data set, by split ("train" or "test")."""

    def locate(self, data_root: Path, split: str) -> str:
        """One line saying where the split will be read from; quick, nothing is decoded.

        Raises UserError where it is neither there nor to be had, or is visibly broken.
        """

    def present(self, data_root: Path, split: str) -> bool:
        """Whether the split is there already, so that nothing would have to be fetched."""

    def load(self, data_root: Path, split: str) -> ImageSet:
        """The split, decoded. Raises UserError, naming the file, where anything is not as promised."""


class Digits:
    """scikit-learn's digits: 1,797 handwritten digits, 8x8, 17 grey levels, installed with the library.

    A level v in 0..16 is stored as round(v * 255 / 16), from which round(x / 255 * 16) recovers it. The last
    360 images are the test split.
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

    def present(self, data_root: Path, split: str) -> bool:
        return importlib.util.find_spec("sklearn") is not None

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
    """A uint8 array of an IDX file: (0, 0, 8, dimensions), the sizes as big-endian 32 bits, then the bytes.

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
            f"{file} holds {len(data) - header:,} bytes for sizes {shape}: it is truncated or another file. "
            f"Delete it to have it downloaded again."
        )
    return np.frombuffer(data, np.uint8, offset=header).reshape(shape)
