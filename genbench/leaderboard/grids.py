"""Which sample grids are part of index.html, and how: as they were committed, byte for byte.

To shrink them would make the page depend on the version of a codec, and would have this machine decode
strangers' pictures. The rows that stand first in their tables come first, one of each track in turn, until
`BUDGET` is used; a grid of more than `LARGEST` bytes, or with a side of more than `SIDE` pixels (a small file
can unfold to gigabytes in the reader's browser), is left out, and the page links it.
"""

from __future__ import annotations

import base64
import struct
from collections.abc import Sequence
from itertools import chain, zip_longest
from pathlib import Path

from genbench.errors import UserError
from genbench.leaderboard.standings import Table
from genbench.leaderboard.submission import SAMPLES
from genbench.leaderboard.submitting import PNG
from genbench.leaderboard.untrusted import read_bytes

BUDGET = 4 << 20
"""Bytes of all grids in the page: about 380 of digits, 20 of CIFAR-10. In base64 they take a third more."""

LARGEST = 512 << 10
"""Bytes of the largest grid in the page."""

SIDE = 2048
"""Pixels of the longest side of a grid in the page."""


def sample_grids(tables: Sequence[Table], root: Path, budget: int = BUDGET) -> dict[str, str]:
    """Sample grids in base64 by the place of their rows; one that cannot be read is left out."""
    found: dict[str, str] = {}
    for row in chain.from_iterable(zip_longest(*(table.rows for table in tables))):
        contents = b"" if row is None else _grid(root / row.place / SAMPLES)
        if not contents:
            continue
        budget -= len(contents)
        if budget < 0:
            break
        found[row.place] = base64.b64encode(contents).decode()
    return found


def _grid(path: Path) -> bytes:
    """The contents of a PNG file within the bounds, else nothing."""
    try:
        contents = read_bytes(path, LARGEST)
    except UserError:  # `check` says why; the page does without
        return b""
    return contents if max(_size(contents), default=SIDE + 1) <= SIDE else b""


def _size(contents: bytes) -> tuple[int, ...]:
    """Width and height from a PNG file's header (W3C PNG, 11.2.1), nothing where there is none."""
    header = PNG + struct.pack(">I", 13) + b"IHDR"
    if not contents.startswith(header) or len(contents) < len(header) + 8:
        return ()
    return struct.unpack_from(">II", contents, len(header))
