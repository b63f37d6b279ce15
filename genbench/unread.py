"""An end without noise for programs whose output nobody reads any more, as in `genbench list | head -3`."""

from __future__ import annotations

import os
import select
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager

STATUS = 128 + signal.SIGPIPE
"""The exit status that a shell gives a program which its reader left."""


def nobody_reads() -> bool:
    """Whether standard output is a pipe whose reader is gone."""
    try:
        output = sys.stdout.fileno()
    except (OSError, ValueError):  # no file at all
        return False
    polled = select.poll()
    polled.register(output, 0)
    return any(event & select.POLLERR for _, event in polled.poll(0))


@contextmanager
def ending_with_the_reader() -> Iterator[None]:
    """Leaves with `STATUS`, and nothing said, where the block fails to print because nobody reads.

    SIGPIPE is left ignored: its default would end a run for a logger's lost connection as well.
    """
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        if not nobody_reads():
            raise
        raise SystemExit(STATUS) from None
    finally:
        if nobody_reads():
            # What is left unwritten would be tried, and complained about, once more at the very end.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
