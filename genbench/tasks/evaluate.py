"""task=evaluate: sample and score a finished run again, with another sampler or other metrics if so typed.

The record goes to <run_dir>/evaluations/<sampler>-step<N>-<what was typed>-<hash>/, beside the run's own,
never over it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from genbench.cli import Typed
from genbench.configuration import METRICS_PARTS, SAMPLER_PARTS, SHOWN, config_hash
from genbench.harness import preflight
from genbench.harness.assembly import Assembly, settle_precision
from genbench.harness.conclusion import conclude
from genbench.harness.distributed import Ranks, resolve_device
from genbench.harness.finished import RECHOSEN, recalled, restore, telling
from genbench.harness.likelihood import check_likelihood
from genbench.harness.progress import Progress
from genbench.harness.recording import describe, git_state
from genbench.harness.rundir import RunDirectory
from genbench.harness.scoring import build_scoring
from genbench.words import key_of


def run(config: dict[str, Any], typed: Typed) -> float:
    """Scores the run in `run_dir` and returns the main metric."""
    directory = RunDirectory(Path(config["run_dir"]))
    config = recalled(config, [key_of(override) for override in typed.now])
    git_state()
    device = resolve_device(config["device"])
    ranks = Ranks.initialise(device)
    try:
        config = settle_precision(config, device)
        return _evaluate(typed, Assembly(config, device, ranks), directory)
    finally:
        ranks.close()


def _evaluate(typed: Typed, assembly: Assembly, directory: RunDirectory) -> float:
    generator, trained = restore(assembly.config, assembly)
    config, ranks = assembly.config, assembly.ranks
    metrics = config["metrics"]
    sampler = assembly.sampler()
    preflight.check_sampler(sampler, generator, config["sampler"]["name"])
    check_likelihood(generator, config)
    scoring, lines = build_scoring(assembly, metrics, generator.image_shape)
    if ranks.leads:
        print(f"{directory.path} at step {trained.steps:,}", flush=True)
        for line in (preflight.describe_model(generator, sampler, config), *lines):
            print(f"  {line}", flush=True)
    if ranks.leads and not directory.started:
        directory.examine(config, grows=False)
        directory.claim(config, typed.overrides)
    ranks.barrier()
    scoring.refer_to(assembly.images, config["dataset"]["reference"], metrics["batch_size"])
    told = telling(typed.now, {*RECHOSEN, *SAMPLER_PARTS, *METRICS_PARTS, "checkpoint"})
    weights = None if config["checkpoint"] == "best" else config["checkpoint"]
    identity = config_hash(config if weights is None else {**config, "weights": weights})
    name = [f"{config['sampler']['name']}-step{trained.steps}", told, identity[:SHOWN]]
    folder = directory.path / "evaluations" / "-".join(filter(None, name))

    def progress(total: int, title: str, unit: str) -> Progress:
        return Progress(total, title, unit=unit, visible=ranks.leads)

    result, pictures = conclude(
        assembly, typed.overrides, generator, sampler, scoring, trained, folder, progress
    )
    if ranks.leads:
        print(describe(result))
        print(f"  samples   {pictures['samples']}")
        print(f"  record    {folder / 'result.json'}", flush=True)
    return result.metrics[0].value
