"""The one error meant for users. It lives here, away from torch, so that command lines answer at once."""

from __future__ import annotations


class UserError(Exception):
    """Something the user can mend; the message says what was found, what was expected and what to type."""


class Stopped(Exception):
    """A signal ended the run in good order; nothing more of it, or of its sweep, is to be started."""

    def __init__(self, number: int) -> None:
        super().__init__(f"stopped by signal {number}")
        self.number = number
