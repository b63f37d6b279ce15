"""Signals after training: the run ends in good order and says how to go on."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from types import SimpleNamespace

import pytest

from genbench.errors import Stopped
from genbench.harness.sitting import Sitting
from genbench.harness.stopping import stoppable

SIGNALS = [signal.SIGTERM, signal.SIGINT]


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_is_raised_where_it_comes(number):
    before = [signal.getsignal(each) for each in SIGNALS]
    with pytest.raises(Stopped) as caught, stoppable():
        os.kill(os.getpid(), number)
    assert caught.value.number == number
    assert [signal.getsignal(each) for each in SIGNALS] == before


def test_what_catches_every_exception_does_not_catch_it_and_a_second_signal_is_not_held_up():
    meanings = []

    def scoring():
        try:
            os.kill(os.getpid(), signal.SIGTERM)
        except Exception:
            pytest.fail("caught")
        finally:
            meanings.append(signal.getsignal(signal.SIGINT))

    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(Stopped), stoppable():
        scoring()
    assert meanings == [before]


def test_who_stops_the_scoring_is_told_that_training_is_kept():
    said, closed = [], []
    sitting = SimpleNamespace(
        say=lambda topic, text: said.append(f"{topic} {text}"), directory=SimpleNamespace(path=Path("runs/a"))
    )
    tracker = SimpleNamespace(finish=lambda values, status: closed.append(status))
    with pytest.raises(Stopped), Sitting.concluding(sitting, tracker):
        os.kill(os.getpid(), signal.SIGTERM)
    (line,) = said
    assert line.startswith("stopped while")
    assert "run_dir=runs/a goes on from there" in line
    assert closed == [0]
