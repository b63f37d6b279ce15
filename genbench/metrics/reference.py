"""The statistics that samples are compared with, computed once and kept on disk.

A file of statistics is only as good as what is known of its making. Ours is named by the digest of
everything that determines it (content of the data set, number of images, weights, layer, resizing,
quantiser); it is found again only by the same, and believed only if its contents have the digest written
beside them. The digest of the making, and not of the bits, is what results record: bits differ in the last
place between processors.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from genbench.data.images import ImageSet
from genbench.metrics.extractors import Extractor
from genbench.metrics.moments import Moments
from genbench.ops.quantize import QUANTISER

_log = logging.getLogger(__name__)

_FORMAT = 1
"""Part of every name, to be raised when `Moments` or the passes that fill it change meaning."""


def _unknown() -> Tensor:
    raise ValueError("only moments are known of these real images, not their features")


@dataclass(frozen=True)
class Reference:
    """Statistics of real images.

    moments: of the extractor's `features` layer; images: what they are of, e.g. "train, 1437 images"; sha256:
    digest of everything that determines them, equal on every machine.
    """

    moments: Moments
    images: str
    sha256: str
    features: Callable[[], Tensor] = _unknown
    """The features themselves, float32 [N, D], for metrics that compare sets: computed at the first call."""


def reference_moments(
    images: ImageSet, extractor: Extractor, cache_dir: Path | None = None, batch_size: int = 500
) -> Reference:
    """Moments of all of `images` under `extractor`: from `cache_dir` where they are known, else computed
    and kept.

    `batch_size` is how many images go through the extractor at once. A cache that cannot be read or written
    costs a warning and time, never the run.
    """
    making = {
        "format": str(_FORMAT),
        "images": images.sha256,
        "split": images.split,
        "count": str(len(images)),
        "extractor": extractor.name,
        "weights": extractor.sha256,
        "layer": extractor.features,
        "resize": extractor.resize,
        "quantiser": QUANTISER,
    }
    key = json.dumps(making, sort_keys=True)
    sha256 = hashlib.sha256(key.encode()).hexdigest()
    file = (
        None if cache_dir is None else cache_dir / f"{images.name}-{extractor.name}-{sha256[:16]}.safetensors"
    )
    moments = None if file is None else _read(file, key)
    if moments is None:
        moments = Moments()
        for part in images.images.split(batch_size):
            moments.update(extractor(part)[extractor.features])
        if file is not None:
            _write(file, key, moments)

    @cache
    def features() -> Tensor:
        return torch.cat([extractor(part)[extractor.features] for part in images.images.split(batch_size)])

    return Reference(moments, f"{images.split}, {len(images)} images", sha256, features)


def _read(file: Path, key: str) -> Moments | None:
    """The moments in `file` if it is there, whole, and of this key."""
    if not file.is_file():
        return None
    try:
        with safe_open(file, framework="pt") as stored:
            said = stored.metadata() or {}
            moments = Moments.from_state({name: stored.get_tensor(name) for name in stored.keys()})  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as error:
        _log.warning("%s is damaged (%s); computing the statistics again.", file, error)
        return None
    if said.get("key") != key or said.get("sha256") != moments.sha256:
        _log.warning("%s does not hold what was written to it; computing the statistics again.", file)
        return None
    return moments


def _write(file: Path, key: str, moments: Moments) -> None:
    """Puts `moments` into `file` in one step; runs of a sweep may do so at the same time."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=file.parent, prefix=file.name, suffix=".part")
        os.close(handle)
        try:
            save_file(moments.state_dict(), name, metadata={"key": key, "sha256": moments.sha256})
            os.replace(name, file)
        finally:
            Path(name).unlink(missing_ok=True)
    except (OSError, SafetensorError) as error:
        _log.warning("Reference statistics could not be kept in %s (%s).", file, error)
