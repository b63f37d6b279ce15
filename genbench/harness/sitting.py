"""One sitting of a run that trains: claim the directory, resume, train within the budget, report."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hydra.utils import instantiate

from genbench.configuration import config_hash, group_hash
from genbench.contracts import Generator, Sampler, UserError
from genbench.errors import Stopped
from genbench.harness import preflight
from genbench.harness.assembly import Assembly
from genbench.harness.checkpoint import Checkpoints
from genbench.harness.distributed import Ranks
from genbench.harness.estimate import measure
from genbench.harness.finite import NotFinite
from genbench.harness.inference import compile_networks
from genbench.harness.progress import Progress, format_duration, parse_duration
from genbench.harness.rundir import RunDirectory
from genbench.harness.stopping import Stopper, stoppable
from genbench.harness.tracking import Logger, RunInfo, Tracker
from genbench.harness.trainer import Outcome, Pace, Periodic, Trainer


class Sitting:
    """What every task that trains has in common."""

    def __init__(self, config: Mapping[str, Any], overrides: Sequence[str], assembly: Assembly) -> None:
        self.config = config
        self.overrides = overrides
        self.assembly = assembly
        self.ranks = assembly.ranks
        self.directory = RunDirectory(Path(config["run_dir"]))
        self.began = time.monotonic()
        self.budget = None if config["budget"] is None else parse_duration(config["budget"])

    def say(self, topic: str, text: str) -> None:
        """A line of the report, from the leading rank."""
        if self.ranks.leads:
            print(f"  {topic:<9} {text}", flush=True)

    def examine(self) -> None:
        """Says whether the run starts or goes on; raises UserError where its directory is another's."""
        config = self.config
        decay = instantiate(config["optim"]["decay"])
        refusal, resumed = None, False
        if self.ranks.leads:
            try:
                resumed = self.directory.examine(config, grows=not decay.depends_on_total)
            except UserError as error:
                refusal = error
        if self.ranks.any(refusal is not None, self.assembly.device):
            raise refusal or UserError("rank 0 refused the run directory; its message says why.")
        if self.ranks.leads:
            name = f"{config['model']['name']} on {config['dataset']['name']}, seed {config['seed']}"
            print(f"{name}: {'continues' if resumed else 'starts'} in {self.directory.path}", flush=True)

    def claim(self) -> None:
        """Makes the directory this run's; after all is checked, so that refusals leave nothing behind."""
        if self.ranks.leads:
            self.directory.claim(self.config, self.overrides)
        self.ranks.barrier()

    def check_data(self) -> None:
        """Says where the training images come from, or why they cannot be had."""
        source = instantiate(self.config["dataset"]["source"])
        self.say("data", source.locate(self.assembly.data_root, "train"))

    def logger(self) -> Logger:
        """The configured mirror of metrics.jsonl, after its own preflight."""
        logger: Logger = instantiate(self.config["logger"])
        if message := logger.preflight():
            self.say("log", message)
        return logger

    def trainer(self, generator: Generator, logger: Logger) -> Trainer:
        """The loop, standing where the newest checkpoint left off."""
        config = self.config
        settings = config["trainer"]
        info = RunInfo(
            run_dir=self.directory.path,
            name=self.directory.path.name,
            group=group_hash(config),
            job_type=config["task"],
            tags=[config["model"]["name"], config["dataset"]["name"]],
            config=config,
        )
        tracker = (
            Tracker(self.directory.path, [logger], info, warn=lambda line: self.say("log", line))
            if self.ranks.leads
            else Tracker.silent()
        )
        trainer = Trainer(
            generator=generator,
            plan=self.assembly.plan(generator),
            batches=self.assembly.batches(),
            batch_size=settings["batch_size"],
            average=self.assembly.average(generator),
            checkpoints=Checkpoints(self.directory.checkpoints, keep=settings["keep"]),
            tracker=tracker,
            pace=Pace(settings["steps"], settings["log_every"], settings["checkpoint_every"]),
            config_hash=config_hash(config),
        )
        if trainer.resume():
            self.say("resumed", f"from step {trainer.step:,}")
        if trainer.world_before not in (None, self.ranks.world):
            self.say(
                "ranks",
                f"{trainer.world_before} before, {self.ranks.world} now: the run goes on, but not bit for "
                "bit as it would have (noise and dropout are drawn by rank)",
            )
        return trainer

    def deadline(self, trainer: Trainer, sampler: Sampler | None) -> float | None:
        """Says how long the run will take; returns when training must end so that the budget is kept."""
        config = self.config
        # Ranks time themselves alone: how many steps they try depends on the clock, so none may
        # wait for another.
        alone = Assembly(config, self.assembly.device, Ranks())
        try:
            durations = measure(
                trainer.generator,
                alone.plan,
                trainer.take,
                sampler,
                min(config["sampler"]["batch_size"], config["metrics"]["n_samples"]),
                alone.inference({**config["sampler"], "compile": False}),
                self.assembly.device,
            )
        except NotFinite:
            self.say("time", "unknown: a loss was not finite within the first steps on trial")
            return None if self.budget is None else self.began + self.budget
        left = config["trainer"]["steps"] - trainer.step
        compiled = config["trainer"]["compile"]
        said = preflight.describe_durations(durations, config, left, self.ranks.world)
        compiling = compiled or config["sampler"].get("compile", False)
        self.say("time", f"{said}{', before compiling' if compiling else ''}")
        if compiled:
            compile_networks(trainer.generator, None if compiled is True else compiled)
        if self.budget is None:
            return None
        _, sampling = preflight.predict(durations, config, left, self.ranks.world)
        # Sampling and scoring belong to the budget: a fifth more than the estimate is kept back for them.
        kept_back = 1.2 * (sampling or 0.0)
        if kept_back >= self.budget:
            raise UserError(
                f"budget={config['budget']} is less than sampling will take ({format_duration(kept_back)}). "
                "Give more, or type fewer sampler.steps or metrics.n_samples."
            )
        return self.began + self.budget - kept_back

    def train(self, trainer: Trainer, deadline: float | None, periodic: Sequence[Periodic] = ()) -> Outcome:
        """Trains. Raises UserError with advice for a loss that is not finite, Stopped where a signal came."""
        stopper = Stopper(deadline)
        stopper.listen()
        try:
            with self.progress(trainer.pace.steps, self.config["model"]["name"], "step", trainer.step) as bar:
                outcome = trainer.run(stopper, list(periodic), bar)
        except NotFinite as error:
            trainer.tracker.finish({}, 1)
            raise UserError(
                f"{error} Training stopped before that step. A lower optim.lr or optim.clip, or "
                "trainer.precision=fp32, usually helps (in a new run_dir)."
            ) from error
        finally:
            stopper.deafen()
        if outcome.stopped == "signal":
            trainer.tracker.finish({}, 0)
            again = f"the same command with run_dir={self.directory.path} goes on from there"
            self.say("stopped", f"at step {outcome.steps:,}; {again}")
            raise Stopped(stopper.number or signal.SIGTERM)
        if outcome.stopped == "budget":
            self.say("budget", f"reached at step {outcome.steps:,} of {trainer.pace.steps:,}")
        return outcome

    @contextmanager
    def concluding(self, tracker: Tracker) -> Iterator[None]:
        """Around what comes after training; says, where a signal ends it, that what was learnt is kept."""
        try:
            with stoppable():
                yield
        except Stopped:
            tracker.finish({}, 0)
            again = f"the same command with run_dir={self.directory.path} goes on from there"
            self.say("stopped", f"while images were drawn and scored; what was learnt is kept, and {again}")
            raise

    def progress(self, total: int, title: str, unit: str, start: int = 0) -> Progress:
        """A progress bar on the leading rank."""
        return Progress(total, title, unit=unit, start=start, visible=self.ranks.leads)
