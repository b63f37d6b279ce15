"""The loop. It knows phases, batches, averages and checkpoints, and no model by name.

A run of k + k steps equals a run of 2k steps bit for bit: data order, dropout and noise are functions of
(seed, step), and everything else that changes is in the checkpoint. SIGTERM, the time budget and the last
step all end the same way: a checkpoint, then the loop returns saying why.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, cast

from torch import Tensor

from genbench.contracts import Batch, Generator, Step, UserError
from genbench.harness.checkpoint import Checkpoints
from genbench.harness.ema import Average
from genbench.harness.finite import NotFinite
from genbench.harness.phases import Plan
from genbench.harness.progress import Progress
from genbench.harness.stopping import Stopper
from genbench.harness.tracking import Tracker


@dataclass(frozen=True)
class Pace:
    """When things happen, in steps; None for never."""

    steps: int
    log_every: int = 50
    checkpoint_every: int | None = None


@dataclass(frozen=True)
class Periodic:
    """Something done every `every` steps during training; a returned number is the checkpoint's score."""

    every: int
    action: Callable[[int], float | None]


@dataclass
class Clock:
    """Wall seconds spent in the training loop, over all sittings of a run."""

    before: float = 0.0
    started: float | None = None

    @property
    def seconds(self) -> float:
        """Seconds until now, or until the clock was stopped."""
        return self.before + (0.0 if self.started is None else time.monotonic() - self.started)

    def start(self) -> None:
        """Counts from here."""
        self.started = time.monotonic()

    def stop(self) -> None:
        """Counts no further."""
        self.before, self.started = self.seconds, None


@dataclass(frozen=True)
class Outcome:
    """Where training stands: steps done, and why it ended: "steps", "budget" or "signal"."""

    steps: int
    stopped: str


class Trainer:
    """Trains a generator by its plan, from wherever the newest checkpoint left off."""

    def __init__(
        self,
        generator: Generator,
        plan: Plan,
        batches: Callable[[int], Batch],
        batch_size: int,
        average: Average | None,
        checkpoints: Checkpoints,
        tracker: Tracker,
        pace: Pace,
        config_hash: str = "",
    ) -> None:
        self.generator = generator
        self.plan = plan
        self.batches = batches
        self.average = average
        self.checkpoints = checkpoints
        self.tracker = tracker
        self.pace = pace
        self.config_hash = config_hash
        self.step = 0
        self.clock = Clock()
        self.world_before: int | None = None
        self.images_per_step = plan.batches_per_step * batch_size

    @property
    def images_seen(self) -> int:
        """Training images shown so far, over all phases and ranks."""
        return self.step * self.images_per_step

    @property
    def sampling_model(self) -> Generator:
        """What samples are drawn from: the averaged weights where there are any, in evaluation mode."""
        return self.generator if self.average is None else cast(Generator, self.average.module)

    # ------------------------------------------------------------------------------------------- state

    def state(self) -> dict[str, Any]:
        """Everything that changes in training."""
        return {
            "step": self.step,
            "images_seen": self.images_seen,
            "wall_seconds": self.clock.seconds,
            "world": self.plan.computation.ranks.world,
            "generator": self.generator.state_dict(),
            "average": None if self.average is None else self.average.state_dict(),
            "optimizers": self.plan.state_dict(),
        }

    def load(self, state: dict[str, Any]) -> None:
        """Restores what `state` gave."""
        self.step = state["step"]
        self.clock = Clock(before=state["wall_seconds"])
        self.world_before = state["world"]
        self.generator.load_state_dict(state["generator"])
        if self.average is not None:
            self.average.load_state_dict(state["average"])
        self.plan.load_state_dict(state["optimizers"])

    def resume(self) -> bool:
        """Loads the newest readable checkpoint and drops what was logged after it; False where none is."""
        newest = self.checkpoints.latest()
        ranks = self.plan.computation.ranks
        step = ranks.broadcast_text(str(newest.step if newest else None))
        found = str(newest.step if newest else None)
        if ranks.any(found != step, self.plan.computation.device):
            raise UserError(
                f"Ranks see different checkpoints in {self.checkpoints.folder} (this one: step {found}, "
                f"the first: step {step}). Give a run_dir that every machine shares."
            )
        if newest is not None:
            # To the CPU first: load_state_dict puts each tensor where its owner wants it.
            self.load(self.checkpoints.load(newest))
        self.tracker.resume(self.step)
        return newest is not None

    def save(self, score: float | None = None) -> None:
        """Writes a checkpoint, on the leading rank; NotFinite where there is nothing worth keeping."""
        self._look()
        self._agree_on_buffers()
        ranks = self.plan.computation.ranks
        if ranks.leads:
            self.checkpoints.save(self.step, self.state(), score=score, config_hash=self.config_hash)
        ranks.barrier()

    def _agree_on_buffers(self) -> None:
        """Batch statistics differ between ranks, each having seen its own images: all take the first's."""
        modules = [self.generator] if self.average is None else [self.generator, self.average.module]
        self.plan.computation.ranks.broadcast([b for module in modules for b in module.buffers()])

    # -------------------------------------------------------------------------------------------- loop

    def take(self, step: int) -> Iterator[Batch]:
        """The batches of a step, in order."""
        first = step * self.plan.batches_per_step
        return (self.batches(first + k) for k in range(self.plan.batches_per_step))

    def run(self, stopper: Stopper, periodic: list[Periodic], progress: Progress) -> Outcome:
        """Trains until the last step or until told to stop; ends with a checkpoint of where it stands.

        Raises NotFinite after leaving the weights of that moment in `checkpoints/diverged`.
        """
        self.clock.start()
        try:
            return self._loop(stopper, periodic, progress)
        finally:
            self.clock.stop()

    def _loop(self, stopper: Stopper, periodic: list[Periodic], progress: Progress) -> Outcome:
        sums: dict[str, Tensor] = {}
        since, first = 0, self.step
        saved = self.step if self.checkpoints.latest() else -1
        while self.step < self.pace.steps:
            reason = stopper.reason(self.step, self.plan.computation.ranks, self.plan.computation.device)
            # However short the budget, a sitting takes a step, so that sittings add up to a run.
            if reason == "signal" or (reason == "budget" and self.step > first):
                if saved != self.step:
                    self.save()
                return Outcome(self.step, reason)
            logged = self.advance()
            since += 1
            sums = {name: sums.get(name, 0) + value for name, value in logged.items()}
            if self.step % self.pace.log_every == 0 or self.step == self.pace.steps:
                self._look()
                means = {name: float(value) / since for name, value in sums.items()}
                means |= {"images_seen": float(self.images_seen), "train_seconds": self.clock.seconds}
                self.tracker.log(self.step, means)
                losses = {n.removesuffix("/loss"): v for n, v in means.items() if n.endswith("/loss")}
                shown = losses if len(losses) > 1 else dict(zip(("loss",), losses.values(), strict=True))
                progress.update(0, **shown)
                sums, since = {}, 0
            progress.update(1)
            # Training time is the loop's, not that of the pictures and scores somebody asked for on the way.
            self.clock.stop()
            score = self._visit(periodic)
            due = self.pace.checkpoint_every and self.step % self.pace.checkpoint_every == 0
            if due or score is not None or self.step == self.pace.steps:
                self.save(score)
                saved = self.step
            self.clock.start()
        if saved != self.step:
            self.save()
        # A signal during the last step asks for an end too, not for hours of scoring.
        signalled = stopper.heard(self.plan.computation.ranks, self.plan.computation.device)
        return Outcome(self.step, "signal" if signalled else "steps")

    def advance(self) -> dict[str, Tensor]:
        """One training step and its average; returns the scalars to log. Raises NotFinite."""
        self.generator.train()
        try:
            logged = self.plan.run(Step(self.step, self.pace.steps), self.take(self.step))
        except NotFinite as error:
            raise self._diverged(error) from None
        if self.average is not None:
            self.average.update(self.step, self.images_seen, self.images_per_step)
        self.step += 1
        return logged

    def _look(self) -> None:
        """Raises NotFinite where training is over; waits for the device."""
        try:
            self.plan.finite.look()
        except NotFinite as error:
            raise self._diverged(error) from None

    def _diverged(self, error: NotFinite) -> NotFinite:
        """`error` with where the weights are, which no step has changed since."""
        folder = self.checkpoints.folder / "diverged"
        if self.plan.computation.ranks.leads:
            Checkpoints(folder, keep=1).save(self.step, self.state(), config_hash=self.config_hash)
        return NotFinite(f"{error} The weights of that moment are in {folder}.")

    def _visit(self, periodic: list[Periodic]) -> float | None:
        score = None
        if any(self.step % entry.every == 0 for entry in periodic):
            self._look()
            self._agree_on_buffers()
        for entry in periodic:
            if self.step % entry.every == 0 and self.step < self.pace.steps:
                result = entry.action(self.step)
                score = result if result is not None else score
        return score
