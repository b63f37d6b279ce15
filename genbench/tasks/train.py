"""task=train: train, sample, score, record; or go on where the run directory left off."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from genbench.cli import Typed
from genbench.configuration import config_hash
from genbench.contracts import Sampler, UserError
from genbench.harness import preflight
from genbench.harness.assembly import Assembly, settle_precision
from genbench.harness.checkpoint import Checkpoint
from genbench.harness.conclusion import GRID_IMAGES, conclude, source_of
from genbench.harness.distributed import Ranks, resolve_device
from genbench.harness.likelihood import check_likelihood
from genbench.harness.pictures import illustrate, save_grid
from genbench.harness.recording import Trained, describe, git_state
from genbench.harness.rundir import default_run_dir
from genbench.harness.scoring import Scoring, build_scoring
from genbench.harness.sitting import Sitting
from genbench.harness.trainer import Outcome, Periodic, Trainer
from genbench.leaderboard.record import Result

VALIDATION_SEED = 2**32 - 1
"""Evaluation seed of scores on the way: checkpoints are not chosen by the images that are reported."""


def run(config: dict[str, Any], typed: Typed) -> float:
    """Trains what `config` says and returns the main metric."""
    if config["checkpoint"] is not None:
        raise UserError(
            "checkpoint= is of runs that are trained: task=evaluate, task=sample. Training goes on from its "
            "own newest checkpoint; type the run's run_dir=PATH."
        )
    git_state()
    device = resolve_device(config["device"])
    ranks = Ranks.initialise(device)
    try:
        folder = ranks.broadcast_text(str(config["run_dir"] or default_run_dir(config, typed.job)))
        config = settle_precision({**config, "run_dir": folder}, device)
        score = _run(Sitting(config, typed.overrides, Assembly(config, device, ranks)))
        typed.finished.append(Path(folder))
        return score
    finally:
        ranks.close()


def _run(sitting: Sitting) -> float:
    config, assembly, directory = sitting.config, sitting.assembly, sitting.directory
    preflight.check_numbers(config, sitting.ranks.world)
    sitting.examine()
    finished = _finished(sitting)
    if finished is not None:
        sitting.say("finished", "before; nothing is left to do")
        _show(sitting, finished)
        return finished.metrics[0].value
    sitting.check_data()
    generator, sampler = assembly.generator(), assembly.sampler()
    preflight.check_trainable(generator)
    preflight.check_sampler(sampler, generator, config["sampler"]["name"])
    preflight.check_conditional(generator, config)
    preflight.check_compilation(generator, config)
    check_likelihood(generator, config)
    sitting.say("model", preflight.describe_model(generator, sampler, config))
    scoring, lines = build_scoring(assembly, config["metrics"], generator.image_shape)
    sitting.say("scores", preflight.describe_scores(scoring.extractors, config))
    for line in lines:
        sitting.say("", line)
    logger = sitting.logger()
    sitting.say("disk", preflight.check_disk(directory.nearest, generator, config))
    sitting.claim()
    scoring.refer_to(assembly.images, config["dataset"]["reference"], config["metrics"]["batch_size"])
    trainer = sitting.trainer(generator, logger)
    deadline = sitting.deadline(trainer, sampler)
    outcome = sitting.train(trainer, deadline, _periodic(sitting, trainer, sampler, scoring))
    return _finish(sitting, trainer, sampler, scoring, outcome)


def _finished(sitting: Sitting) -> Result | None:
    """The record of this very run, if all its steps were taken and scored before."""
    if not sitting.directory.result_file.is_file():
        return None
    result = Result.read(sitting.directory.result_file)
    done = result.training.steps >= sitting.config["trainer"]["steps"]
    return result if done and result.config_hash == config_hash(sitting.config) else None


def _periodic(sitting: Sitting, trainer: Trainer, sampler: Sampler, scoring: Scoring) -> list[Periodic]:
    settings = sitting.config["trainer"]

    def grid(step: int) -> None:
        source = source_of(sitting.assembly, trainer.sampling_model, sampler)
        folder, prefix = sitting.directory.samples, f"step-{step:08d}"
        pictures = illustrate(source.model, sitting.assembly, folder, f"{prefix}-")
        if sitting.ranks.leads:
            drawn = next(source.alone().draw(GRID_IMAGES, 0))
            pictures["samples"] = save_grid(drawn.images, folder / f"{prefix}.png")
        for name, path in pictures.items():
            trainer.tracker.image(step, name, path)

    def score(step: int) -> float:
        source = source_of(sitting.assembly, trainer.sampling_model, sampler)
        scored = scoring.brief().score(source, settings["evaluate_samples"], [VALIDATION_SEED])
        trainer.tracker.log(step, {f"eval/{metric.name}": metric.value for metric in scored.metrics})
        return scored.main.value if scored.main.better == "lower" else -scored.main.value

    periods = [(settings["sample_every"], grid), (settings["evaluate_every"], score)]
    return [Periodic(every, action) for every, action in periods if every]


def _finish(
    sitting: Sitting, trainer: Trainer, sampler: Sampler, scoring: Scoring, outcome: Outcome
) -> float:
    config, directory = sitting.config, sitting.directory
    trained = Trained(
        steps=outcome.steps,
        images_seen=trainer.images_seen,
        wall_seconds=trainer.clock.seconds,
        complete=outcome.steps >= config["trainer"]["steps"],
        averaged=trainer.average is not None,
        world=sitting.ranks.world,
    )
    with sitting.concluding(trainer.tracker):
        result, pictures = conclude(
            sitting.assembly,
            sitting.overrides,
            trainer.sampling_model,
            sampler,
            scoring,
            trained,
            directory.path,
            sitting.progress,
        )
    if sitting.ranks.leads:
        values = {f"eval/{metric.name}": metric.value for metric in result.metrics}
        trainer.tracker.log(outcome.steps, values)
        for name, path in pictures.items():
            trainer.tracker.image(outcome.steps, name, path)
        _keep(trainer, [directory.result_file, directory.config_file, *pictures.values()])
        trainer.tracker.keep("samples", [directory.samples / "samples.npz"], ["latest"])
        trainer.tracker.finish(values, 0)
        _show(sitting, result)
        if others := [path.name for name, path in pictures.items() if name != "samples"]:
            print(f"  pictures  {', '.join(others)} beside it", flush=True)
    return result.metrics[0].value


def _keep(trainer: Trainer, result: Sequence[Path]) -> None:
    """Hands the mirrors the best checkpoint and the newest, which may be one, and the files of the result."""
    kept: dict[Checkpoint, list[str]] = {}
    for alias, found in (("best", trainer.checkpoints.best()), ("latest", trainer.checkpoints.latest())):
        if found is not None:
            kept.setdefault(found, []).append(alias)
    for checkpoint, aliases in kept.items():
        trainer.tracker.keep("checkpoint", [checkpoint.path, checkpoint.seal], aliases)
    trainer.tracker.keep("result", result, ["latest"])


def _show(sitting: Sitting, result: Result) -> None:
    if sitting.ranks.leads:
        print(describe(result), flush=True)
        print(f"  samples   {sitting.directory.samples / 'grid.png'}")
        print(f"  record    {sitting.directory.result_file}", flush=True)
