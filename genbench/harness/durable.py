"""Files that are either the old ones or the new ones, never half of each.

A file is written under a temporary name in its own folder, forced to the disk, and renamed: POSIX makes the
rename atomic, so a reader (or a restart after SIGKILL or a power cut) sees the old bytes or the new ones. The
operations that touch the disk go through one object, `files`, so that a test can make any one of them fail.
"""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

PARTIAL = ".partial"
"""Ending of a temporary name: such a file is left by a writer that was killed and may be deleted."""

Chunk = bytes | memoryview


class Files:
    """The operations on the disk that can be interrupted, one method each."""

    def create(self, path: Path) -> BinaryIO:
        """An empty file at `path`, open for writing."""
        return path.open("wb")

    def write(self, handle: BinaryIO, chunk: Chunk) -> None:
        """Appends `chunk`."""
        handle.write(chunk)

    def sync(self, handle: BinaryIO) -> None:
        """Returns once what was written is on the disk."""
        handle.flush()
        os.fsync(handle.fileno())

    def replace(self, source: Path, target: Path) -> None:
        """Renames atomically, over `target` if it exists."""
        os.replace(source, target)

    def remove(self, path: Path) -> None:
        """Deletes a file; one that is already gone is no error."""
        path.unlink(missing_ok=True)

    def sync_folder(self, folder: Path) -> None:
        """Returns once renames and deletions in `folder` are on the disk (where a file system can)."""
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.ENOTSUP):
                raise
        finally:
            os.close(descriptor)


files = Files()


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A file open for writing that stands at `path`, all of it and on the disk, once the block ends well.

    The folder is created if need be. Where the block, or the disk, fails, whatever stood at `path` is
    untouched.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + PARTIAL)
    with files.create(temporary) as handle:
        yield handle
        files.sync(handle)
    files.replace(temporary, path)
    files.sync_folder(path.parent)


def replace_file(path: Path, chunks: Iterable[Chunk]) -> str:
    """Writes `chunks` to `path`, all or nothing, and returns the SHA-256 of the whole in hexadecimal.

    When it returns, the bytes and the name are on the disk. The folder is created if need be. Raises OSError
    (no space, no permission) with whatever stood at `path` untouched.
    """
    digest = hashlib.sha256()
    with replacing(path) as handle:
        for chunk in chunks:
            digest.update(chunk)
            files.write(handle, chunk)
    return digest.hexdigest()
