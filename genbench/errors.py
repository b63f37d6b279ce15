"""The one error meant for users. It lives here, away from torch, so that command lines answer at once."""

from __future__ import annotations


class UserError(Exception):
    """Something the user can mend; the message says what was found, what was expected and what to type."""


def printable(text: str) -> str:
    """`text` that others wrote, without what could drive a terminal or start a line: its escapes instead."""
    return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text)


class Stopped(BaseException):
    """A signal ended the run in good order; nothing more of it, or of its sweep, is to be started.

    No Exception, as KeyboardInterrupt is none: it may come anywhere, and what catches them must let it pass.
    """

    def __init__(self, number: int) -> None:
        super().__init__(f"stopped by signal {number}")
        self.number = number
