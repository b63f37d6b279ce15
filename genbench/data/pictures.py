"""Folders and zips of encoded pictures, read in memory and never unpacked.

Both are the same noun: a sorted list of names, and bytes for a name. Names inside a zip are only ever keys
into its directory, so one like `../../etc/passwd` is no more than an odd name: nothing is written under it.
Encrypted entries, entries that unpack to more than `ENTRY_BYTES`, and names that occur twice are refused.
"""

from __future__ import annotations

import hashlib
import os
import stat
import zipfile
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Protocol

from genbench.contracts import UserError

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
"""What counts as a picture, by the end of its name in lower case."""

ENTRY_BYTES = 2**28
"""The most bytes one file of a collection may hold (the label file of ten million images fits)."""


class Pictures(Protocol):
    """Encoded pictures under one path."""

    path: Path

    @property
    def names(self) -> Sequence[str]:
        """Names of the pictures relative to the root, with forward slashes, sorted."""

    def has(self, name: str) -> bool:
        """Whether there is a file (picture or not) of that name."""

    def read(self, name: str) -> bytes:
        """The bytes of one file. Raises UserError naming it where it cannot be read."""

    def fingerprint(self) -> str:
        """A hash that changes when any file does, made without reading their contents."""


def open_pictures(path: Path) -> Pictures:
    """The folder or zip at `path`. Raises UserError where there is neither, or the zip is broken."""
    if path.is_dir():
        return FolderOfPictures(path)
    if path.is_file():
        return ZipOfPictures(path)
    raise UserError(f"There is nothing at {path}; expected a folder or a zip of PNG, JPEG or WebP images.")


def is_picture(name: str) -> bool:
    """Whether a name is a picture's, leaving out what operating systems scatter (`._x.png`, `__MACOSX/`)."""
    *folders, file = name.split("/")
    return file.lower().endswith(SUFFIXES) and not file.startswith(".") and "__MACOSX" not in folders


class FolderOfPictures:
    """Every picture under a folder, however deep."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._names: list[str] | None = None

    @property
    def names(self) -> Sequence[str]:
        if self._names is None:
            self._names = sorted(name for name in self._walk() if is_picture(name))
        return self._names

    def has(self, name: str) -> bool:
        return (self.path / name).is_file()

    def read(self, name: str) -> bytes:
        file = self.path / name
        try:
            facts = file.stat()
            if not stat.S_ISREG(facts.st_mode):  # reading a pipe would wait for ever
                raise UserError(f"{file} is no regular file; expected a picture.")
            if facts.st_size > ENTRY_BYTES:
                raise UserError(f"{file} holds more than {ENTRY_BYTES:,} bytes; no picture should.")
            return file.read_bytes()
        except OSError as error:
            raise UserError(f"{file} could not be read: {error.strerror or error}.") from error

    def fingerprint(self) -> str:
        digest = hashlib.sha256()
        for name in self.names:
            facts = (self.path / name).stat()
            digest.update(f"{name}\0{facts.st_size}\0{facts.st_mtime_ns}\n".encode(errors="surrogateescape"))
        return digest.hexdigest()

    def _walk(self) -> Iterable[str]:
        def refuse(error: OSError) -> None:
            raise UserError(f"{error.filename} could not be listed: {error.strerror}.") from error

        for folder, _, files in os.walk(self.path, onerror=refuse):
            inside = Path(folder).relative_to(self.path)
            for file in files:
                yield (inside / file).as_posix()


class ZipOfPictures:
    """Every picture in a zip. Raises UserError where the file is no zip or its directory is damaged."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._zip = zipfile.ZipFile(path)
        except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
            raise UserError(
                f"{path} is not a readable zip ({error}). An interrupted copy or download looks like this; "
                f"delete it and put a whole one in its place."
            ) from error
        self._entries = {entry.filename: entry for entry in self._zip.infolist()}
        if len(self._entries) != len(self._zip.infolist()):
            raise UserError(f"{path} holds several entries of one name; expected every name once.")
        self._names = sorted(name for name in self._entries if is_picture(name))

    @property
    def names(self) -> Sequence[str]:
        return self._names

    def has(self, name: str) -> bool:
        return name in self._entries

    def read(self, name: str) -> bytes:
        entry = self._entries.get(name)
        if entry is None:
            raise UserError(f"{self.path} holds no {name}.")
        if entry.flag_bits & 1:
            raise UserError(f"{name} in {self.path} is encrypted; expected a zip without a password.")
        if entry.file_size > ENTRY_BYTES:
            raise UserError(
                f"{name} in {self.path} unpacks to {entry.file_size:,} bytes; "
                f"no more than {ENTRY_BYTES:,} are taken."
            )
        try:
            return self._zip.read(entry)
        except (
            zipfile.BadZipFile,
            zlib.error,
            OSError,
            EOFError,
            NotImplementedError,
            RuntimeError,
        ) as error:
            raise UserError(f"{name} in {self.path} is damaged ({error}); replace the zip.") from error

    def fingerprint(self) -> str:
        facts = self.path.stat()
        digest = hashlib.sha256(f"{facts.st_size}\0{facts.st_mtime_ns}\n".encode())
        for name, entry in sorted(self._entries.items()):
            digest.update(f"{name}\0{entry.file_size}\0{entry.CRC}\n".encode(errors="surrogateescape"))
        return digest.hexdigest()
