"""The real images that samples are compared with, as an extractor sees them: computed once and kept on disk.

A file of statistics is only as good as what is known of its making. Ours is named by the digest of
everything that determines it (content of the data set, number of images, weights, layer, resizing,
quantiser); it is found again only by the same, and believed only if its contents have the digest written
beside them. The digest of the making, and not of the bits, is what results record: bits differ in the last
place between processors. Moments are always kept; whole layers, which are as large as the data set, only
where a measure needs them.
"""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from genbench.data.images import ImageSet
from genbench.metrics.extractors import Extractor
from genbench.metrics.identity import digest_of, making
from genbench.metrics.moments import Moments, digest
from genbench.ops.quantize import QUANTISER

_log = logging.getLogger(__name__)

Kept = TypeVar("Kept")


def _unknown() -> Tensor:
    raise ValueError("only moments are known of these real images, not their features")


@dataclass(frozen=True)
class Reference:
    """One layer of real images.

    moments: of the layer; images: what they are of, e.g. "train, 1437 images"; sha256: digest of everything
    that determines them, equal on every machine; labels: int64 [N] on the CPU, None where there are none.
    """

    moments: Moments
    images: str
    sha256: str
    features: Callable[[], Tensor] = _unknown
    """The layer itself, float32 [N, D] on the CPU, for measures that said they keep it."""
    labels: Tensor | None = None


class Real:
    """The layers of real images that the measures of one extractor asked for, by role and split.

    split: the reference split, which is meant where none is named.
    """

    def __init__(self, split: str, layers: Mapping[tuple[str, str], Reference]) -> None:
        self.split, self._layers = split, dict(layers)

    def __call__(self, role: str = "features", split: str | None = None) -> Reference:
        """A layer by its role. Raises ValueError for one that no measure had asked for."""
        wanted = (role, split or self.split)
        if wanted not in self._layers:
            known = ", ".join(f"{role} of {split}" for role, split in sorted(self._layers))
            raise ValueError(f"{wanted[0]} of {wanted[1]} were not prepared; there are: {known or 'none'}")
        return self._layers[wanted]


def refer(
    images: ImageSet,
    extractor: Extractor,
    roles: Collection[str],
    whole: Collection[str] = (),
    cache_dir: Path | None = None,
    batch_size: int = 500,
) -> dict[str, Reference]:
    """The layers of `images` that play `roles`, those in `whole` with all their rows: from `cache_dir` where
    they are known, else computed in one pass and kept.

    `batch_size` is how many images go through the extractor at once. A cache that cannot be read or written
    costs a warning and time, never the run.
    """
    names = {extractor.roles[role] for role in roles}
    wanted = {extractor.roles[role] for role in whole}
    layers = {name: _Layer(images, extractor, name, name in wanted, cache_dir) for name in sorted(names)}
    lacking = {name: layer for name, layer in layers.items() if not layer.known}
    if lacking:
        for part in images.images.split(batch_size):
            found = extractor(part)
            for name, layer in lacking.items():
                layer.update(found[name])
        for layer in lacking.values():
            layer.finish()
    made = {name: layer.reference() for name, layer in layers.items()}
    return {role: made[extractor.roles[role]] for role in roles}


class _Layer:
    """What is known of one layer of `images`: read from `folder`, or gathered in a pass and kept there."""

    def __init__(
        self, images: ImageSet, extractor: Extractor, name: str, whole: bool, folder: Path | None
    ) -> None:
        self.images, self.whole = images, whole
        self.key = making(
            images=images.sha256,
            split=images.split,
            count=len(images),
            extractor=extractor.name,
            weights=extractor.sha256,
            layer=name,
            resize=extractor.resize,
            quantiser=QUANTISER,
        )
        self.sha256 = digest_of(self.key)
        stem = f"{images.name}-{extractor.name}-{self.sha256[:16]}"
        self._files = (
            None if folder is None else (folder / f"{stem}.safetensors", folder / f"{stem}-rows.safetensors")
        )
        self.moments: Moments | None = None
        self.rows: Tensor | None = None
        if self._files is not None:
            self.moments = _read(self._files[0], self.key, Moments.from_state)
            self.rows = _read(self._files[1], self.key, self._parse_rows) if whole else None
        self._sums, self._parts = Moments(), list[Tensor]()

    @property
    def known(self) -> bool:
        return self.moments is not None and (self.rows is not None or not self.whole)

    def update(self, features: Tensor) -> None:
        self._sums.update(features)
        if self.whole:
            self._parts.append(features.float().cpu())

    def finish(self) -> None:
        if self.moments is None:
            self.moments = self._sums
            if self._files is not None:
                _write(self._files[0], self.key, self.moments.state_dict())
        if self.whole and self.rows is None:
            self.rows = torch.cat(self._parts)
            if self._files is not None:
                _write(self._files[1], self.key, {"rows": self.rows})

    def reference(self) -> Reference:
        assert self.moments is not None
        images, rows = self.images, self.rows
        return Reference(
            moments=self.moments,
            images=f"{images.split}, {len(images)} images",
            sha256=self.sha256,
            features=_unknown if rows is None else lambda: rows,
            labels=None if images.labels is None else images.labels.cpu(),
        )

    def _parse_rows(self, state: Mapping[str, Tensor]) -> Tensor:
        rows = state.get("rows")
        n = len(self.images)
        if rows is None or rows.ndim != 2 or len(rows) != n or rows.dtype != torch.float32:
            raise ValueError(f"expected rows float32 [{n}, D]")
        return rows


def _read(file: Path, key: str, parse: Callable[[Mapping[str, Tensor]], Kept]) -> Kept | None:
    """What `parse` makes of the tensors in `file` if they are all there, unchanged, and of this key."""
    if not file.is_file():
        return None
    try:
        with safe_open(file, framework="pt") as stored:
            said = stored.metadata() or {}
            state = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118
        found = parse(state)
    except (SafetensorError, OSError, ValueError) as error:
        _log.warning("%s is damaged (%s); computing the statistics again.", file, error)
        return None
    if said.get("key") != key or said.get("sha256") != digest(state):
        _log.warning("%s does not hold what was written to it; computing the statistics again.", file)
        return None
    return found


def _write(file: Path, key: str, state: dict[str, Tensor]) -> None:
    """Puts `state` into `file` in one step; runs of a sweep may do so at the same time."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=file.parent, prefix=file.name, suffix=".part")
        os.close(handle)
        try:
            save_file(state, name, metadata={"key": key, "sha256": digest(state)})
            os.replace(name, file)
        finally:
            Path(name).unlink(missing_ok=True)
    except (OSError, SafetensorError) as error:
        _log.warning("Reference statistics could not be kept in %s (%s).", file, error)
