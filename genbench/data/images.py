"""A split of a data set, decoded: uint8 images in an order that does not depend on where they came from.

The same pictures reach us as torchvision's files, as a zip of PNGs, or as a folder, each in an order of its
own. Here every image gets the digest

    d_i = SHA-256(pixels of image i, as C, H, W bytes || label of image i, int64 little-endian, -1 for none)

the images of a split are sorted by d_i, and the set's name for itself is SHA-256(shape || d_1 || ... || d_N).
Two sources with the same pictures and labels therefore give the same tensor, the same training order and the
same hash, and since digests are as good as random, any prefix is a fair mix of the classes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from genbench.contracts import UserError

SPLITS = ("train", "test")
"""The splits every source is asked for; nothing else is one."""


@dataclass(frozen=True, eq=False)
class ImageSet:
    """One split of a data set, resident on a device.

    images: uint8 [N, C, H, W], contiguous; labels: int64 [N] in [0, classes), or None where classes is 0;
    levels: how many grey levels a pixel can take (256; digits have 17, spread evenly over 0..255);
    sha256: of pixels and labels, see the module; provenance: where it was read and how it was prepared.
    Raises ValueError where these do not agree with each other.
    """

    name: str
    split: str
    images: Tensor
    labels: Tensor | None
    classes: int
    levels: int
    sha256: str
    provenance: Mapping[str, str]

    def __post_init__(self) -> None:
        if self.images.dtype != torch.uint8 or self.images.ndim != 4 or not self.images.is_contiguous():
            raise ValueError(f"{self.name}: images must be contiguous uint8 [N, C, H, W]")
        if (self.labels is None) != (self.classes == 0):
            raise ValueError(f"{self.name}: labels and classes={self.classes} do not go together")
        if self.labels is not None and (
            self.labels.dtype != torch.int64 or self.labels.shape != self.images.shape[:1]
        ):
            raise ValueError(f"{self.name}: labels must be int64 [{len(self.images)}]")

    def to(self, device: torch.device | str) -> ImageSet:
        """The same set with images and labels on `device`."""
        labels = None if self.labels is None else self.labels.to(device)
        return replace(self, images=self.images.to(device), labels=labels)

    def __len__(self) -> int:
        return self.images.shape[0]


def digests(images: np.ndarray, labels: np.ndarray | None) -> list[bytes]:
    """d_i of the module docstring for uint8 images [N, C, H, W] and integer labels [N] (or None)."""
    numbers = np.full(len(images), -1) if labels is None else labels
    rows = numbers.astype("<i8").view("V8")
    hashed = []
    for pixels, label in zip(np.ascontiguousarray(images), rows, strict=True):
        digest = hashlib.sha256(pixels)
        digest.update(label.tobytes())
        hashed.append(digest.digest())
    return hashed


def canonical(
    name: str,
    split: str,
    images: np.ndarray,
    labels: np.ndarray | None,
    *,
    classes: int,
    levels: int,
    provenance: Mapping[str, str],
) -> ImageSet:
    """An ImageSet on the CPU from uint8 images [N, C, H, W] and integer labels [N], in any order."""
    hashed = digests(images, labels)
    order = np.array(sorted(range(len(hashed)), key=hashed.__getitem__), dtype=np.int64)
    whole = hashlib.sha256(f"uint8 NCHW {images.shape}".encode())
    for position in order:
        whole.update(hashed[position])
    return ImageSet(
        name=name,
        split=split,
        images=torch.from_numpy(images[order]),
        labels=None if labels is None else torch.from_numpy(labels[order].astype(np.int64)),
        classes=classes,
        levels=levels,
        sha256=whole.hexdigest(),
        provenance=dict(provenance),
    )


def check_split(split: str) -> None:
    """Raises UserError unless `split` is one of `SPLITS`."""
    if split not in SPLITS:
        raise UserError(f"There is no split {split!r}; the splits are {' and '.join(SPLITS)}.")


def check_facts(
    images: ImageSet, name: str, channels: int, resolution: int, classes: int, levels: int
) -> None:
    """Raises UserError where a loaded set is not what the configuration says of it.

    Models are built from the configuration (`dataset.channels`, ...), so a disagreement would otherwise
    surface as a shape error far away, or, for `levels`, as a wrong likelihood.
    """
    _, found_channels, height, width = images.images.shape
    facts = {
        "name": (images.name, name),
        "channels": (found_channels, channels),
        "resolution": (height if height == width else f"{height}x{width}", resolution),
        "classes": (images.classes, classes),
        "levels": (images.levels, levels),
    }
    wrong = [
        f"dataset.{fact} is {said}, the {images.split} split has {found} (type dataset.{fact}={found})"
        for fact, (found, said) in facts.items()
        if found != said
    ]
    if wrong:
        raise UserError(
            f"The configuration does not fit the data set {images.name}: " + "; ".join(wrong) + "."
        )
