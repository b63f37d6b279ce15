"""How long a run will take on this device, from a few steps taken on a copy of the model."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch

from genbench.contracts import Batch, Generator, Sampler, Step
from genbench.harness.inference import Inference
from genbench.harness.phases import Plan
from genbench.ops.random import Keys

EVALUATIONS = ("denoise", "decode", "energy")
"""What a sampler may ask a model for; each call is one evaluation."""


@dataclass(frozen=True)
class Durations:
    """Seconds a training step, and seconds an image drawn (None where the sampler cannot say its NFE)."""

    step: float
    image: float | None


class _Enough(Exception):
    """Raised from inside a sampler when enough evaluations have been timed."""


class _Stopwatch:
    """A model that notes when it is evaluated and ends the sampling after `limit` evaluations."""

    def __init__(self, model: Any, limit: int) -> None:
        self._model = model
        self._limit = limit
        self.moments: list[float] = []

    def __getattr__(self, name: str) -> Any:
        attribute = getattr(self._model, name)
        return self._timed(attribute) if name in EVALUATIONS else attribute

    def _timed(self, evaluate: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*args: Any, **kwargs: Any) -> Any:
            self.moments.append(_now())
            if len(self.moments) > self._limit:
                raise _Enough
            return evaluate(*args, **kwargs)

        return timed


def _now() -> float:
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()
    return time.perf_counter()


def measure(
    generator: Generator,
    make_plan: Callable[[Generator], Plan],
    take: Callable[[int], Iterator[Batch]],
    sampler: Sampler | None,
    batch_size: int,
    inference: Inference,
    device: torch.device,
) -> Durations:
    """Times steps and evaluations on a copy of `generator`; the original is not touched.

    take(step) gives the batches of a step; batch_size and inference are the sampler's.
    """
    trial = copy.deepcopy(generator)
    step = _seconds_a_step(make_plan(trial), take)
    with inference.of(trial):
        image = None if sampler is None else _seconds_an_image(trial, sampler, batch_size, device)
    return Durations(step, image)


def _seconds_a_step(plan: Plan, take: Callable[[int], Iterator[Batch]], patience: float = 3.0) -> float:
    """The shortest of up to five steps after one of warming up, for at most `patience` seconds."""
    seconds = []
    began = _now()
    for index in range(6):
        started = _now()
        plan.run(Step(index, 1_000_000), take(index))
        seconds.append(_now() - started)
        if index and _now() - began > patience:
            break
    return min(seconds[1:] or seconds)


@torch.inference_mode()
def _seconds_an_image(
    trial: Generator,
    sampler: Sampler,
    batch_size: int,
    device: torch.device,
    limit: int = 3,
) -> float | None:
    evaluations = sampler.evaluations()
    if evaluations is None:
        return None
    trial.eval()
    stopwatch = _Stopwatch(trial, limit)
    fitted = {name: value.to(device) for name, value in sampler.placeholder(trial).items()}
    labels = (
        torch.zeros(batch_size, dtype=torch.int64, device=device) if getattr(trial, "classes", 0) else None
    )
    with suppress(_Enough):
        sampler(stopwatch, Keys(torch.arange(batch_size, device=device), 0), labels, fitted)
    moments = [*stopwatch.moments, _now()] if len(stopwatch.moments) <= limit else stopwatch.moments
    spans = [after - before for before, after in pairwise(moments)]
    return evaluations * min(spans) / batch_size
