"""What determines statistics of real images, and the name that follows from it: the same on every machine.

Bits of statistics differ in the last place between processors, so results record the digest of how they were
made: which images, through which weights, after which resizing. Whoever reads a record can derive that
digest again. Torch is not imported here.
"""

from __future__ import annotations

import hashlib
import json

FORMAT = 1
"""Part of every name, to be raised when `Moments` or the passes that fill it change meaning."""


def making(
    *,
    images: str,
    split: str,
    count: int,
    extractor: str,
    weights: str,
    layer: str,
    resize: str,
    quantiser: str,
) -> str:
    """Everything that determines a layer's statistics, as canonical JSON.

    images: content hash of the split; count: how many images it has; weights: SHA-256 of the weights file.
    """
    facts = {
        "format": str(FORMAT),
        "images": images,
        "split": split,
        "count": str(count),
        "extractor": extractor,
        "weights": weights,
        "layer": layer,
        "resize": resize,
        "quantiser": quantiser,
    }
    return json.dumps(facts, sort_keys=True)


def digest_of(making: str) -> str:
    """What results record as `reference_sha256`."""
    return hashlib.sha256(making.encode()).hexdigest()
