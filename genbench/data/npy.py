"""Arrays of plain numbers from an npz or npy that may be anything: nothing is unpickled or taken on trust.

What a file's directory and header promise is compared, with each other and with what is taken at most, before
anything is unpacked.
"""

from __future__ import annotations

import lzma
import math
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO

import numpy as np

from genbench.errors import UserError, printable

MOST_BYTES = 2**32
"""The most bytes that are taken of a stranger's array: 1.4 million images of CIFAR-10's size in uint8."""

CHUNK = 1 << 20
"""Bytes that are unpacked at once."""

NUMBERS = "biuf"
"""Kinds of numbers that are taken: truth values, integers with a sign and without, floating-point numbers."""

_HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}

_BROKEN = (
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    struct.error,
    OSError,
    EOFError,
    ValueError,
    SyntaxError,
    TypeError,
    NotImplementedError,
    RuntimeError,  # an encrypted entry; RecursionError is one
    tokenize.TokenError,
    MemoryError,  # so Python's parser says that a header is nested too deeply
)
"""What zipfile and numpy raise for files that are none of theirs."""


def read(
    path: Path, choose: Callable[[Sequence[str]], str], most: int = MOST_BYTES
) -> tuple[str, np.ndarray]:
    """One array of a file, and its name: that which `choose` names in an npz, the only one, "", of an npy.

    most: the bytes it may have.

    Raises UserError, in one line, where the file is no such file, is broken, or holds other than numbers.
    """
    magic = np.lib.format.MAGIC_PREFIX
    try:
        with path.open("rb") as file:
            if file.read(len(magic)) == magic:  # whatever the file is called
                file.seek(0)
                return "", _array(file, path.stat().st_size, str(path), most)
        with zipfile.ZipFile(path) as archive:
            entries = {entry.filename.removesuffix(".npy"): entry for entry in archive.infolist()}
            if len(entries) < len(archive.infolist()):
                raise UserError(f"{path} holds several entries of one name; expected every name once.")
            name = choose(list(entries))
            shown = printable(name)[:80]
            with archive.open(entries[name]) as file:
                return shown, _array(file, entries[name].file_size, f"{path} ({shown})", most)
    except _BROKEN as error:
        reason = "nested too deeply" if isinstance(error, RecursionError | MemoryError) else error
        said = printable(str(reason))[:300]
        raise UserError(f"{path} cannot be read as an npz or npy of plain numbers: {said}") from error


def _array(file: IO[bytes], length: int, where: str, most: int) -> np.ndarray:
    """The array in a file of `length` bytes."""
    version = np.lib.format.read_magic(file)
    if version not in _HEADERS:
        raise ValueError(f"format {version}, expected 1.0 or 2.0")
    shape, by_columns, kind = _HEADERS[version](file)
    if kind.kind not in NUMBERS:
        raise UserError(f"{where}: found {printable(str(kind))[:80]}; expected numbers.")
    if len(shape) < 1 or min(shape) < 1:
        raise UserError(f"{where}: found {kind} {list(shape)}; expected images.")
    size = math.prod(shape) * kind.itemsize
    if size > most:
        raise UserError(f"{where} holds {size:,} bytes; at most {most:,} are taken.")
    if length != file.tell() + size:
        raise ValueError(f"it is {length:,} bytes long, its header says {size:,} of numbers")
    stored, filled = np.empty(size, np.uint8), 0
    while filled < size and (part := file.read(min(CHUNK, size - filled))):
        stored[filled : filled + len(part)] = np.frombuffer(part, np.uint8)
        filled += len(part)
    file.read(1)  # the end, where the checksum is compared
    if filled < size:
        raise EOFError(f"it ends after {filled:,} of {size:,} bytes of numbers")
    return stored.view(kind).reshape(shape, order="F" if by_columns else "C")
