"""task=train: train, sample, score, record; or go on where the run directory left off."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from hydra.utils import instantiate

from genbench.cli import Typed
from genbench.configuration import config_hash, group_hash
from genbench.contracts import Fitted, Generator, Sampler, UserError
from genbench.harness import preflight
from genbench.harness.assembly import Assembly
from genbench.harness.checkpoint import Checkpoints
from genbench.harness.distributed import Ranks, resolve_device
from genbench.harness.estimate import measure
from genbench.harness.fitting import fit
from genbench.harness.phases import NotFinite
from genbench.harness.pictures import save_grid
from genbench.harness.progress import Progress, parse_duration
from genbench.harness.recording import Trained, compose
from genbench.harness.rundir import RunDirectory, default_run_dir
from genbench.harness.sampling import Source
from genbench.harness.scoring import Scored, Scoring, build_scoring
from genbench.harness.stopping import Stopper
from genbench.harness.tracking import Logger, RunInfo, Tracker
from genbench.harness.trainer import Outcome, Pace, Periodic, Trainer
from genbench.leaderboard.record import Result

GRID_IMAGES = 64


def run(config: dict[str, Any], typed: Typed) -> float | None:
    """Trains what `config` says and returns the main metric (None where stopped by a signal)."""
    device = resolve_device(config["device"])
    ranks = Ranks.initialise(device)
    try:
        folder = Path(
            ranks.broadcast_text(str(config["run_dir"] or default_run_dir(config, typed.job)))
        )
        return Run({**config, "run_dir": str(folder)}, typed, Assembly(config, device, ranks)).go()
    finally:
        ranks.close()


class Run:
    """One sitting of a training run."""

    def __init__(self, config: dict[str, Any], typed: Typed, assembly: Assembly) -> None:
        self.config = config
        self.typed = typed
        self.assembly = assembly
        self.ranks = assembly.ranks
        self.directory = RunDirectory(Path(config["run_dir"]))
        self.began = time.monotonic()
        self.budget = None if config["budget"] is None else parse_duration(config["budget"])

    def say(self, topic: str, text: str) -> None:
        """A line of the report, from the leading rank."""
        if self.ranks.leads:
            print(f"  {topic:<9} {text}", flush=True)

    # ------------------------------------------------------------------------------------- the sitting

    def go(self) -> float | None:
        """Preflight, training, samples, scores, record."""
        config, assembly = self.config, self.assembly
        resumed = self._claim()
        finished = self._finished()
        if finished is not None:
            self._show(finished)
            return finished.metrics[0].value
        if self.ranks.leads:
            name = f"{config['model']['name']} on {config['dataset']['name']}, seed {config['seed']}"
            print(f"{name} {'continues' if resumed else 'starts'} in {self.directory.path}", flush=True)
        self.say("data", instantiate(config["dataset"]["source"]).locate(assembly.data_root, "train"))
        generator, sampler = assembly.generator(), assembly.sampler()
        preflight.check_sampler(sampler, generator, config["sampler"]["name"])
        self.say("model", preflight.describe_model(generator, sampler, config))
        scoring, lines = build_scoring(assembly, config["metrics"], generator.image_shape)
        self.say("scores", preflight.describe_scores(scoring.extractors, config))
        for line in lines:
            self.say("", line)
        logger: Logger = instantiate(config["logger"])
        if message := logger.preflight():
            self.say("log", message)
        self.say("disk", preflight.check_disk(self.directory.path, generator, config))
        scoring.refer_to(
            assembly.images(config["dataset"]["reference"]), assembly, config["metrics"]["batch_size"]
        )
        trainer = self._trainer(generator, logger)
        if trainer.resume():
            self.say("resumed", f"from step {trainer.step:,}")
        deadline = self._estimate(generator, trainer, sampler)
        outcome = self._train(trainer, sampler, scoring, deadline)
        if outcome.stopped == "signal":
            trainer.tracker.finish({}, 0)
            self.say("stopped", f"at step {outcome.steps:,}; the same command with this run_dir goes on from there")
            return None
        return self._finish(trainer, sampler, scoring, outcome)

    def _claim(self) -> bool:
        decay = instantiate(self.config["optim"]["decay"])
        resumed = False
        if self.ranks.leads:
            resumed = self.directory.claim(
                self.config, self.typed.overrides, grows=not decay.depends_on_total
            )
        self.ranks.barrier()
        return resumed

    def _finished(self) -> Result | None:
        """The record of this very run, if all its steps were taken and scored before."""
        if not self.directory.result_file.is_file():
            return None
        result = Result.read(self.directory.result_file)
        done = result.training.steps >= self.config["trainer"]["steps"]
        return result if done and result.config_hash == config_hash(self.config) else None

    # ---------------------------------------------------------------------------------------- training

    def _trainer(self, generator: Generator, logger: Logger) -> Trainer:
        config = self.config
        info = RunInfo(
            run_dir=self.directory.path,
            name=self.directory.path.name,
            group=group_hash(config),
            job_type="train",
            tags=[config["model"]["name"], config["dataset"]["name"]],
            config=config,
        )
        tracker = (
            Tracker(self.directory.path, [logger], info, warn=lambda line: self.say("log", line))
            if self.ranks.leads
            else Tracker.silent()
        )
        average = self.assembly.average(generator)
        return Trainer(
            generator=generator,
            plan=self.assembly.plan(generator),
            batches=self.assembly.batches(),
            batch_size=config["trainer"]["batch_size"],
            average=average,
            checkpoints=Checkpoints(self.directory.checkpoints, keep=config["trainer"]["keep"]),
            tracker=tracker,
            pace=Pace(
                steps=config["trainer"]["steps"],
                log_every=config["trainer"]["log_every"],
                checkpoint_every=config["trainer"]["checkpoint_every"],
            ),
            config_hash=config_hash(config),
        )

    def _estimate(self, generator: Generator, trainer: Trainer, sampler: Sampler) -> float | None:
        """Says how long the run will take; returns the moment training must end to keep the budget."""
        config = self.config
        if config["trainer"]["compile"]:
            # A compiled step takes a minute to be ready; timing an eager one would say nothing about it.
            self.say("time", "compiled: the rate is shown once the first steps are done")
            for network in generator.children():
                network.compile()
            return None if self.budget is None else self.began + self.budget
        durations = measure(
            generator,
            self.assembly.plan,
            lambda step, plan: (trainer.batches(step * plan.batches_per_step + k) for k in range(plan.batches_per_step)),
            sampler,
            min(config["sampler"]["batch_size"], config["metrics"]["n_samples"]),
            self.assembly.device,
        )
        left = config["trainer"]["steps"] - trainer.step
        self.say("time", preflight.describe_durations(durations, config, left, self.ranks.world))
        if self.budget is None:
            return None
        _, sampling = preflight.predict(durations, config, left, self.ranks.world)
        # Sampling and scoring belong to the budget: a fifth more than the estimate is kept back for them.
        return self.began + max(0.0, self.budget - 1.2 * (sampling or 0.0))

    def _train(
        self, trainer: Trainer, sampler: Sampler, scoring: Scoring, deadline: float | None
    ) -> Outcome:
        settings = self.config["trainer"]
        stopper = Stopper(deadline)
        periodic = []
        if settings["sample_every"]:
            periodic.append(Periodic(settings["sample_every"], self._grid_action(trainer, sampler)))
        if settings["evaluate_every"]:
            periodic.append(
                Periodic(settings["evaluate_every"], self._score_action(trainer, sampler, scoring))
            )
        title = self.config["model"]["name"]
        stopper.listen()
        try:
            with self._progress(settings["steps"], title, "step", trainer.step) as progress:
                return trainer.run(stopper, periodic, progress)
        except NotFinite as error:
            trainer.tracker.finish({}, 1)
            raise UserError(
                f"{error} Training stopped before that step. A lower optim.lr or optim.clip, or "
                "trainer.precision=fp32, usually helps (in a new run_dir)."
            ) from error
        finally:
            stopper.deafen()

    def _grid_action(self, trainer: Trainer, sampler: Sampler) -> Any:
        def action(step: int) -> None:
            source = self._source(trainer, sampler, fit(sampler, trainer.sampling_model, self.assembly))
            if not self.ranks.leads:
                return
            drawn = next(iter(_alone(source).draw(GRID_IMAGES, 0)))
            path = save_grid(drawn.images, self.directory.samples / f"step-{step:08d}.png")
            trainer.tracker.image(step, "samples", path)

        return action

    def _score_action(self, trainer: Trainer, sampler: Sampler, scoring: Scoring) -> Any:
        def action(step: int) -> float:
            source = self._source(trainer, sampler, fit(sampler, trainer.sampling_model, self.assembly))
            scored = scoring.score(source, self.config["trainer"]["evaluate_samples"], [0])
            trainer.tracker.log(step, {f"eval/{metric.name}": metric.value for metric in scored.metrics})
            main = scored.main
            return main.value if main.better == "lower" else -main.value

        return action

    # --------------------------------------------------------------------------------- samples and record

    def _source(self, trainer: Trainer, sampler: Sampler, fitted: Fitted) -> Source:
        return Source(
            trainer.sampling_model,
            sampler,
            fitted,
            self.config["sampler"]["batch_size"],
            self.assembly.device,
            self.ranks,
        )

    def _finish(self, trainer: Trainer, sampler: Sampler, scoring: Scoring, outcome: Outcome) -> float:
        config = self.config
        source = self._source(trainer, sampler, fit(sampler, trainer.sampling_model, self.assembly))
        metrics = config["metrics"]
        total = metrics["n_samples"] * len(metrics["seeds"])
        with self._progress(total // self.ranks.world, "sampling", "image", 0) as progress:
            scored = scoring.score(source, metrics["n_samples"], metrics["seeds"], progress)
        trained = Trained(
            steps=outcome.steps,
            images_seen=trainer.images_seen,
            wall_seconds=trainer.clock.seconds,
            stopped=outcome.stopped,
            averaged=trainer.average is not None,
            world=self.ranks.world,
        )
        result = compose(
            config,
            self.typed.overrides,
            trainer.generator,
            self.assembly.images(config["dataset"]["reference"]),
            trained,
            scored,
            self.assembly.device,
        )
        if self.ranks.leads:
            write_samples(scored, self.directory.samples)
            result.write(self.directory.result_file)
            trainer.tracker.image(outcome.steps, "samples", self.directory.samples / "grid.png")
            values = {f"eval/{metric.name}": metric.value for metric in result.metrics}
            trainer.tracker.log(outcome.steps, values)
            trainer.tracker.finish(values, 0)
            self._show(result)
        self.ranks.barrier()
        return result.metrics[0].value

    def _show(self, result: Result) -> None:
        if self.ranks.leads:
            print(describe(result, self.directory), flush=True)

    def _progress(self, total: int, title: str, unit: str, start: int) -> Progress:
        return Progress(total, title, unit=unit, start=start, visible=self.ranks.leads)


def _alone(source: Source) -> Source:
    """`source` drawn by one rank, whatever the others do."""
    return Source(source.model, source.sampler, source.fitted, source.batch_size, source.device)


def write_samples(scored: Scored, folder: Path) -> None:
    """grid.png and samples.npz (`images`, uint8 NHWC) of the first evaluation seed."""
    save_grid(scored.images[:GRID_IMAGES], folder / "grid.png")
    np.savez_compressed(folder / "samples.npz", images=scored.images.permute(0, 2, 3, 1).numpy())


def describe(result: Result, directory: RunDirectory) -> str:
    """The end of a run in a few lines: scores and where things are."""
    lines = []
    for metric in result.metrics:
        spread = "" if metric.std is None else f" ± {metric.std:.3g} over {metric.n_seeds} evaluation seeds"
        count = "" if "@" in metric.name else f"  ({metric.n_samples:,} samples)"
        lines.append(f"  {metric.name:<24} {metric.value:.4g}{spread}{count}")
    sampling = result.sampling
    lines.append(
        f"  {'cost':<24} {sampling.nfe_mean:g} evaluations and {sampling.seconds_per_image:.3g} s an image, "
        f"{result.training.images_seen:,} training images in {result.training.wall_seconds:.0f} s"
    )
    lines.append(f"  samples    {directory.samples / 'grid.png'}")
    lines.append(f"  record     {directory.result_file}")
    return "\n".join(lines)
