"""How far long work has come: a bar where there is a terminal, a line now and then where there is none.

Also durations, read and written the way people do: "1h30m" in, "1 h 30 min" out.
"""

from __future__ import annotations

import math
import re
import sys
import time
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self, TextIO

from tqdm import tqdm

from genbench.errors import UserError

_REFRESH = 0.5  # seconds between changes of the values beside the bar
_WINDOW = 6  # lines over which the rate is taken: a minute, after which compilation and warm-up are forgotten


class Progress:
    """Progress of `total` units of work, of which `start` were done before (a resumed run's); on stderr.

    Without a terminal a line is printed at most every `interval` seconds, and one at the end:

        ddpm 1200/4000 step  31.2 step/s  1:29 left  loss 0.051

    The values shown may be anything `float` takes, or strings. They are converted only when a line is due, so
    that a loss on a GPU costs no synchronisation in between. `total` may be None where it is not known;
    `visible=False` shows nothing at all (for ranks other than the first). `clock` is in seconds.
    """

    def __init__(
        self,
        total: int | None,
        title: str,
        unit: str = "step",
        start: int = 0,
        *,
        visible: bool = True,
        interval: float = 10.0,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.total, self.title, self.unit, self.done = total, title, unit, start
        self._start, self._visible, self._interval, self._clock = start, visible, interval, clock
        self._stream = stream if stream is not None else sys.stderr
        self._shown: dict[str, Any] = {}
        self._began = self._due_since = clock()
        self._printed = start
        self._marks = deque([(self._began, start)], maxlen=_WINDOW)
        self._bar: tqdm | None = None
        if visible and self._stream.isatty():
            self._bar = tqdm(
                total=total,
                desc=title,
                unit=unit,
                initial=start,
                file=self._stream,
                dynamic_ncols=True,
                smoothing=0.1,
            )

    def update(self, n: int = 1, **shown: Any) -> None:
        """Counts `n` units done; `shown` are values to show beside them, remembered until changed."""
        self.done += n
        self._shown.update(shown)
        if not self._visible:
            return
        now = self._clock()
        if self._bar is not None:
            if now - self._due_since >= _REFRESH:
                self._due_since = now
                self._bar.set_postfix_str(self._values(), refresh=False)
            self._bar.update(n)
        elif now - self._due_since >= self._interval:
            self._print_line(now)

    def note(self, text: str) -> None:
        """Prints a line of its own without breaking the bar."""
        if not self._visible:
            return
        if self._bar is not None:
            tqdm.write(text, file=self._stream)
        else:
            print(text, file=self._stream, flush=True)

    def close(self) -> None:
        """Shows where the work ended; further calls do nothing."""
        if self._bar is not None:
            self._bar.set_postfix_str(self._values(), refresh=False)
            self._bar.close()
        elif self._visible and self.done > self._printed:
            now = self._clock()
            self._marks = deque([(self._began, self._start)])  # the last line tells of the whole
            self._print_line(now, f"{_clock_time(now - self._began)} in all")
        self._visible, self._bar = False, None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _print_line(self, now: float, ending: str | None = None) -> None:
        then, before = self._marks[0]
        rate = (self.done - before) / (now - then) if now > then else math.inf
        count = f"{self.done}/{self.total}" if self.total is not None else f"{self.done}"
        parts = [f"{self.title} {count} {self.unit}"]
        if math.isfinite(rate) and rate > 0:
            parts.append(_rate(rate, self.unit))
            if ending is None and self.total is not None:
                ending = f"{_clock_time((self.total - self.done) / rate)} left"
        parts += [part for part in (ending, self._values()) if part]
        print("  ".join(parts), file=self._stream, flush=True)
        self._due_since, self._printed = now, self.done
        self._marks.append((now, self.done))

    def _values(self) -> str:
        return "  ".join(
            f"{name} {value}" if isinstance(value, str) else f"{name} {float(value):.3g}"
            for name, value in self._shown.items()
        )


def _rate(rate: float, unit: str) -> str:
    """Units a second, or seconds a unit where that is slower than one a second."""
    return f"{rate:.3g} {unit}/s" if rate >= 1 else f"{1 / rate:.3g} s/{unit}"


def _clock_time(seconds: float) -> str:
    """89 → "1:29", 7390 → "2:03:10"."""
    minutes, second = divmod(max(0, round(seconds)), 60)
    hour, minute = divmod(minutes, 60)
    return f"{hour}:{minute:02d}:{second:02d}" if hour else f"{minute}:{second:02d}"


def format_duration(seconds: float) -> str:
    """Seconds as people say them, in at most two units: "0.4 s", "1 min 29 s", "1 h 12 min", "3 d 4 h".

    Rounded to the smaller unit shown. Not finite: "unknown time".
    """
    if not math.isfinite(seconds):
        return "unknown time"
    if seconds < 9.95:
        return f"{seconds:.2g} s"
    text = ""
    # smaller unit, its seconds, how many make the larger one, how many are too many for this pair
    for small, size, large, base, ceiling in (
        ("s", 1, "min", 60, 3600),
        ("min", 60, "h", 60, 1440),
        ("h", 3600, "d", 24, math.inf),
    ):
        count = round(seconds / size)
        text = " ".join(f"{n} {unit}" for n, unit in zip(divmod(count, base), (large, small)) if n)
        if count < ceiling:
            break
    return text


_DURATION = re.compile(
    r"(?:(?P<d>\d+(?:\.\d+)?)d)?(?:(?P<h>\d+(?:\.\d+)?)h)?"
    r"(?:(?P<m>\d+(?:\.\d+)?)m(?:in)?)?(?:(?P<s>\d+(?:\.\d+)?)s?)?"
)
_SECONDS = {"d": 86400.0, "h": 3600.0, "m": 60.0, "s": 1.0}


def parse_duration(text: str | float) -> float:
    """Seconds from "20m", "1h30m", "1.5h", "90s", "2d", or a bare number of seconds; spaces do not matter.

    Raises UserError for anything else, and for a duration of zero.
    """
    match = _DURATION.fullmatch("".join(str(text).lower().split()))
    seconds = sum(_SECONDS[unit] * float(n) for unit, n in match.groupdict().items() if n) if match else 0.0
    if not seconds > 0.0 or isinstance(text, bool):
        raise UserError(
            f"{text!r} is not a duration; type one like 20m, 1h30m, 1.5h, 90s, 2d or 900 (seconds)"
        )
    return seconds
