"""Decoded images kept on disk, for collections whose pictures take longer to decode than to read back.

One file a collection, of raw tensors (safetensors: nothing in it can run), written beside its final name and
moved into place, so that a killed run leaves either the old file or the new one. It is believed only if its
*key* (sizes, dates and checksums of the pictures, and how they were prepared) is the present one and its
contents have the hash that was written with them; otherwise the pictures are decoded again.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import secrets
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from genbench.data.decoding import Preparation, decode_all, decoder_version
from genbench.data.pictures import Pictures

FOLDER = "genbench-cache"
"""The folder under data_root that holds these files; it may be deleted at any time."""

KEEP_FROM = 2**28
"""Collections of at least this many decoded bytes are kept; smaller ones (CIFAR-10: 154 MB) take seconds."""

_log = logging.getLogger(__name__)


def decode_or_reuse(
    pictures: Pictures,
    names: Sequence[str],
    channels: int,
    resolution: int,
    preparation: Preparation,
    data_root: Path,
    title: str,
) -> np.ndarray:
    """What `decode_all` gives, uint8 [N, C, resolution, resolution], if possible from
    data_root/genbench-cache.

    Raises UserError as `decode_all` does. `title` begins the file's name, for people.
    """

    def decode() -> np.ndarray:
        return decode_all(pictures, names, channels, resolution, preparation)

    if not preparation.slow and len(names) * channels * resolution**2 < KEEP_FROM:
        return decode()
    prepared = {
        "path": str(pictures.path.resolve()),
        "channels": str(channels),
        "resolution": str(resolution),
        "preparation": str(preparation),
    }
    tag = hashlib.sha256(json.dumps(prepared, sort_keys=True).encode()).hexdigest()[:12]
    key = prepared | {
        "names": hashlib.sha256("\0".join(names).encode(errors="surrogateescape")).hexdigest(),
        "pictures": pictures.fingerprint(),
        "decoder": decoder_version(),
    }
    return decoded_once(data_root / FOLDER / f"{title}-{tag}.safetensors", key, decode)


def decoded_once(file: Path, key: Mapping[str, str], decode: Callable[[], np.ndarray]) -> np.ndarray:
    """`decode()`, or the uint8 array it gave when it was last called under the same key.

    A folder that cannot be written costs a warning and the next run's time, never this run.
    """
    wanted = json.dumps(dict(key), sort_keys=True)
    kept = _read(file, wanted)
    if kept is not None:
        return kept
    pixels = decode()
    try:
        _write(file, wanted, pixels)
    except OSError as error:
        _log.warning("Decoded images could not be kept in %s (%s); the next run decodes again.", file, error)
    return pixels


def _checksum(pixels: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(pixels).data).hexdigest()


def _read(file: Path, key: str) -> np.ndarray | None:
    """The array in `file`, if it is there, whole, and of this key."""
    if not file.is_file():
        return None
    try:
        with safe_open(file, framework="np") as stored:
            said = stored.metadata() or {}
            if said.get("key") != key:
                return None
            pixels = stored.get_tensor("images")
    except (SafetensorError, OSError) as error:
        _log.warning("%s is damaged (%s); decoding again.", file, error)
        return None
    if _checksum(pixels) != said.get("sha256"):
        _log.warning("%s does not hold what was written to it; decoding again.", file)
        return None
    return pixels


def _write(file: Path, key: str, pixels: np.ndarray) -> None:
    """Puts `pixels` in `file` in one step. Raises OSError where that is impossible."""
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_name(f"{file.name}.{os.getpid()}-{secrets.token_hex(4)}.part")
    try:
        save_file({"images": pixels}, part, metadata={"key": key, "sha256": _checksum(pixels)})
        os.replace(part, file)
    except SafetensorError as error:  # what a full disk is to that library
        raise OSError(str(error)) from error
    finally:
        part.unlink(missing_ok=True)
