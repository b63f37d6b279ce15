"""What strangers might send: mutated JSON, archives and directories made to harm a careless reader."""

from __future__ import annotations

import copy
import io
import json
import os
import pickle
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import strategies as st

STRANGE: tuple[Any, ...] = (
    None,
    True,
    0,
    -1,
    1.5,
    -0.0,
    2**63,
    10**400,
    float("nan"),
    float("inf"),
    1e308,
    "",
    "\x1b[2J",
    "\ud800",
    "a\u202eb",
    "a\nb",
    "\ufeff",
    "../../../etc/passwd",
    "/etc/passwd",
    "<img src=x onerror=hacked()>",
    "](javascript:hacked())",
    "=cmd|' /C calc'!A0",
    "x" * 10**6,
    [],
    {},
    [[]],
    {"": {}},
    {"_target_": "os.system"},
    {"__proto__": 1},
)
"""Values put where others are expected."""

DEEP = (50, 400, 1200, 20_000)
"""Levels of nested lists."""


def places(tree: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path of every value inside a tree."""
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, inner in items:
        yield (*at, key)
        yield from places(inner, (*at, key))


@st.composite
def mutated_json(draw: st.DrawFn, tree: Any, paths: list[tuple[Any, ...]]) -> bytes:
    """The text of `tree`, changed in one to three places as a value, and perhaps once more as bytes."""
    tree = copy.deepcopy(tree)
    marks: dict[str, str] = {}
    for number in range(draw(st.integers(0, 3))):
        _change(draw, tree, draw(st.sampled_from(paths)), marks, number)
    text = json.dumps(tree)
    for mark, instead in marks.items():
        text = text.replace(mark, instead, 1)
    contents = text.encode("utf-8", "surrogatepass")
    return draw(mutated_bytes(contents)) if not marks and draw(st.booleans()) else contents


def _change(draw: st.DrawFn, tree: Any, path: tuple[Any, ...], marks: dict[str, str], number: int) -> None:
    for step, key in enumerate(path):
        inside = key in tree if isinstance(tree, dict) else isinstance(tree, list) and key in range(len(tree))
        if not inside:
            return  # an earlier change took it away
        if step < len(path) - 1:
            tree = tree[key]
    how = draw(st.sampled_from(("replace", "replace", "delete", "rename", "twice", "deep")))
    if how == "replace":
        tree[key] = draw(st.sampled_from(STRANGE))
    elif how == "delete":
        del tree[key]
    elif how == "rename" and isinstance(tree, dict):
        tree[draw(st.sampled_from(("", "\x1b[2J", "a" * 5000, "__class__", "\ud800")))] = tree.pop(key)
    elif how == "twice" and isinstance(tree, dict):
        tree[f"mark{number}"] = 0
        marks[f'"mark{number}": 0'] = f"{json.dumps(key)}: 0"
    elif how == "deep":
        depth = draw(st.sampled_from(DEEP))
        tree[key] = f"mark{number}"
        marks[f'"mark{number}"'] = "[" * depth + "]" * depth


@st.composite
def mutated_bytes(draw: st.DrawFn, contents: bytes) -> bytes:
    """`contents` with bytes flipped, cut out, doubled, put in, or in another encoding."""
    how = draw(st.sampled_from(("flip", "cut", "end", "double", "insert", "bom", "utf16", "random")))
    start = draw(st.integers(0, max(0, len(contents) - 1)))
    stop = min(len(contents), start + draw(st.integers(1, 64)))
    if how == "flip" and contents:
        return contents[:start] + bytes([contents[start] ^ draw(st.integers(1, 255))]) + contents[start + 1 :]
    if how == "cut":
        return contents[:start] + contents[stop:]
    if how == "end":
        return contents[:start]
    if how == "double":
        return contents[:stop] + contents[start:]
    if how == "insert":
        return contents[:start] + draw(st.binary(max_size=32)) + contents[start:]
    if how == "bom":
        return b"\xef\xbb\xbf" + contents
    if how == "utf16":
        return contents.decode("latin-1").encode("utf-16")
    return draw(st.binary(max_size=200))


class Sentinel:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return os.mkdir, (str(self.path),)


def npy(shape: tuple[int, ...], data: bytes, kind: str = "|u1") -> bytes:
    """An .npy file whose header promises `shape`, whatever `data` is."""
    header = f"{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}, }}".encode()
    header += b" " * (-(len(header) + 11) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + data


def zipped(*entries: tuple[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    """A zip of named entries, in order, names as they are."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as archive:
        for name, data in entries:
            archive.writestr(zipfile.ZipInfo(name), data, method)
    return stream.getvalue()


def overlapping(name: str, size: int, copies: int) -> bytes:
    """A zip bomb after Fifield (2019): many names of one compressed run of zeros."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    packed = packer.compress(bytes(size)) + packer.flush()
    crc = zlib.crc32(bytes(size))
    fields = (20, 0, 8, 0, 0, crc, len(packed), size)
    first = name.format(0).encode()
    body = struct.pack("<4sHHHHHIIIHH", b"PK\x03\x04", *fields, len(first), 0) + first + packed
    directory = b""
    for number in range(copies):
        title = name.format(number).encode()
        directory += (
            struct.pack("<4sHHHHHHIIIHHHHHII", b"PK\x01\x02", 20, *fields, len(title), 0, 0, 0, 0, 0, 0)
            + title
        )
    end = struct.pack("<4sHHHHIIH", b"PK\x05\x06", 0, 0, copies, copies, len(directory), len(body), 0)
    return body + directory + end


def png(width: int, height: int, *chunks: tuple[bytes, bytes]) -> bytes:
    """A grey PNG whose header promises a size, with any chunks between header and (one row's) data."""
    header = (b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    parts = (header, *chunks, (b"IDAT", zlib.compress(bytes(9))), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in parts
    )


def archives(mark: Path) -> dict[str, bytes]:
    """Files that call themselves npz of 8 x 8 grey images and are not to be trusted, by what is wrong."""
    good = npy((2, 8, 8, 1), bytes(128))
    pickled = io.BytesIO()
    np.save(pickled, np.array([Sentinel(mark)], dtype=object), allow_pickle=True)
    return {
        "not a zip": b"PK\x03\x04 and then nothing",
        "empty": b"",
        "a pickle": pickle.dumps(Sentinel(mark)),
        "pickled objects": zipped(("images.npy", pickled.getvalue())),
        "one name twice": zipped(("images.npy", good), ("images.npy", good)),
        "no such array": zipped(("../../images.npy", good), ("/etc/passwd.npy", good)),
        "huge shape": zipped(("images.npy", npy((10**9, 10**9, 8, 1), b""))),
        "huge but countable": zipped(("images.npy", npy((2**26, 8, 8, 1), bytes(64)))),
        "negative shape": zipped(("images.npy", npy((-1, 8, 8, 1), bytes(64)))),
        "too little": zipped(("images.npy", npy((3, 8, 8, 1), bytes(128)))),
        "too much": zipped(("images.npy", good + bytes(1))),
        "nested header": zipped(("images.npy", npy((0,), b"").replace(b"(0,)", b"(" * 5000))),
        "floats": zipped(("images.npy", npy((2, 8, 8, 1), bytes(512), "<f4"))),
        "high ratio": zipped(("images.npy", npy((1, 8, 8, 1), bytes(1 << 26)))),
        "overlapping": overlapping("images{}.npy", 1 << 20, 200),
        "encrypted": _with_flag(zipped(("images.npy", good))),
        "unknown compression": zipped(("images.npy", good)).replace(
            b"\x08\x00\x00\x00!\x00", b"\x63\x00\x00\x00!\x00"
        ),
        "changed after": zipped(("images.npy", good), method=zipfile.ZIP_STORED).replace(
            bytes(64), b"\x01" * 64, 1
        ),
    }


def _with_flag(archive: bytes) -> bytes:
    """The same with every entry marked as encrypted."""
    marked = bytearray(archive)
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        marked[archive.index(signature) + offset] |= 1
    return bytes(marked)


def pictures(mark: Path) -> dict[str, bytes]:
    """Zips of pictures that are not to be trusted, by what is wrong."""
    text = b"key\0\0" + zlib.compress(bytes(1 << 23))
    fine = png(8, 8)
    return {
        "huge picture": zipped(("a.png", png(2**31 - 1, 2**31 - 1))),
        "large picture": zipped(("a.png", png(60_000, 60_000))),
        "text that unfolds": zipped(("a.png", png(8, 8, *[(b"zTXt", text)] * 3))),
        "a pickle": zipped(("a.png", pickle.dumps(Sentinel(mark)))),
        "one name twice": zipped(("a.png", fine), ("a.png", fine)),
        "overlapping": overlapping("{}.png", 1 << 20, 200),
        "high ratio": zipped(("a.png", bytes(1 << 26))),
        "markup": zipped(("a.png", b"<svg onload='hacked()'/>")),
        "climbing, and no picture": zipped(("../../a.png", b"x"), ("/tmp/a.png", b"y"), ("C:\\a.png", b"z")),
        "control codes in the name": zipped(("\x1b[2J\u202ea.png", b"x")),
    }
