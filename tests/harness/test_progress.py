"""Progress with a clock of our own, and durations there and back."""

import io
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from genbench.errors import UserError
from genbench.harness.progress import Progress, format_duration, parse_duration


class Clock:
    """Seconds that pass when told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def run(steps, seconds_a_step, stream=None, **options):
    """The lines printed by `steps` steps of equal length, and the clock."""
    stream, clock = stream or io.StringIO(), Clock()
    with Progress(stream=stream, clock=clock, **options) as progress:
        for index in range(steps):
            clock.now += seconds_a_step
            progress.update(loss=1.0 / (index + 1))
    return stream.getvalue().splitlines()


def test_a_line_says_count_rate_time_left_and_values():
    stream, clock = io.StringIO(), Clock()
    progress = Progress(4000, "ddpm", stream=stream, clock=clock)
    clock.now += 32.0
    progress.update(1000, loss=0.051, phase="critic")
    assert stream.getvalue() == "ddpm 1000/4000 step  31.2 step/s  1:36 left  loss 0.051  phase critic\n"


def test_lines_come_no_oftener_than_the_interval_and_the_last_one_tells_of_the_whole():
    lines = run(101, 0.25, total=101, title="t", interval=10.0)
    assert [line.split()[1] for line in lines] == ["40/101", "80/101", "101/101"]
    assert lines[-1] == "t 101/101 step  4 step/s  0:25 in all  loss 0.0099"


def test_the_rate_of_a_resumed_run_counts_only_its_own_steps():
    assert run(10, 2.0, total=5000, start=4000, title="t", interval=20.0) == [
        "t 4010/5000 step  2 s/step  33:00 left  loss 0.1"
    ]


def test_a_slow_first_step_is_forgotten_until_the_last_line():
    stream, clock = io.StringIO(), Clock()
    progress = Progress(100_000, "t", stream=stream, clock=clock, interval=10.0)
    clock.now += 600.0  # compilation
    progress.update()
    for _ in range(70):
        clock.now += 1.0
        progress.update(10)
    assert "  10 step/s  " in stream.getvalue().splitlines()[-1]
    clock.now += 1.0
    progress.update()
    progress.close()
    assert stream.getvalue().splitlines()[-1] == "t 702/100000 step  1.05 step/s  11:11 in all"


def test_values_are_converted_only_when_a_line_is_due():
    class Loss:
        reads = 0

        def __float__(self) -> float:
            Loss.reads += 1
            return 0.5

    stream, clock = io.StringIO(), Clock()
    progress = Progress(None, "t", unit="image", stream=stream, clock=clock)
    for _ in range(100):
        clock.now += 1.0
        progress.update(loss=Loss())
    assert Loss.reads == len(stream.getvalue().splitlines()) == 10
    assert stream.getvalue().startswith("t 10 image  1 image/s  loss 0.5\n")


def test_a_terminal_gets_a_bar_that_notes_do_not_break():
    stream = Terminal()
    with Progress(10, "ddpm", start=4, stream=stream, interval=0.0) as progress:
        progress.update(6, loss=0.25)
        progress.note("saved")
    shown = stream.getvalue()
    assert "\nsaved\n" in shown.replace("\r", "\n")
    assert "10/10" in shown.splitlines()[-1]
    assert "loss 0.25" in shown.splitlines()[-1]


@pytest.mark.parametrize("stream", [io.StringIO(), Terminal()])
def test_an_invisible_one_counts_and_prints_nothing(stream):
    progress = Progress(10, "t", stream=stream, interval=0.0, visible=False)
    progress.update(3)
    progress.note("unseen")
    progress.close()
    assert (progress.done, stream.getvalue()) == (3, "")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (0.041, "0.041 s"),
        (9.94, "9.9 s"),
        (9.96, "10 s"),
        (59.6, "1 min"),
        (89, "1 min 29 s"),
        (3599.6, "1 h"),
        (4320, "1 h 12 min"),
        (86399, "1 d"),
        (3 * 86400 + 4 * 3600, "3 d 4 h"),
        (math.inf, "unknown time"),
    ],
)
def test_durations_as_people_say_them(seconds, text):
    assert format_duration(seconds) == text


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("20m", 1200),
        ("20 min", 1200),
        ("1h30m", 5400),
        ("1.5h", 5400),
        ("90s", 90),
        ("2d", 172800),
        ("900", 900),
        (900, 900),
        (0.5, 0.5),
        ("1H 30M 5", 5405),
    ],
)
def test_durations_as_people_type_them(text, seconds):
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    "text", ["", "m", "20x", "30m1h", "-5m", "0", "nan", "inf", "1h1h", "1.m", "None", True]
)
def test_nonsense_is_refused_saying_what_to_type(text):
    with pytest.raises(UserError, match="type one like 20m"):
        parse_duration(text)


@given(st.floats(10, 1e7))
def test_a_printed_duration_reads_back_to_within_its_smaller_unit(seconds):
    resolution = 1 if seconds < 3599.5 else 60 if seconds < 86370 else 3600
    assert abs(parse_duration(format_duration(seconds)) - seconds) <= resolution / 2
