"""task=evaluate: sample and score a finished run again, with another sampler or other metrics if so typed.

The record goes to <run_dir>/evaluations/<sampler>-step<N>-<hash>/, beside the run's own, never over it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from genbench.cli import Typed, key_of
from genbench.configuration import config_hash
from genbench.harness import preflight
from genbench.harness.assembly import Assembly
from genbench.harness.distributed import Ranks, resolve_device
from genbench.harness.finished import overlay, restore
from genbench.harness.fitting import fit
from genbench.harness.progress import Progress
from genbench.harness.recording import compose, describe, git_state, write_samples
from genbench.harness.rundir import RunDirectory
from genbench.harness.sampling import Source
from genbench.harness.scoring import build_scoring
from genbench.tasks.train import GRID_IMAGES


def run(config: dict[str, Any], typed: Typed) -> float:
    """Scores the run in `run_dir` and returns the main metric."""
    directory = RunDirectory(Path(config["run_dir"]))
    config = overlay(directory.config(), config, [key_of(override) for override in typed.now])
    git_state()
    device = resolve_device(config["device"])
    ranks = Ranks.initialise(device)
    try:
        return _evaluate(config, typed, Assembly(config, device, ranks), directory)
    finally:
        ranks.close()


def _evaluate(config: dict[str, Any], typed: Typed, assembly: Assembly, directory: RunDirectory) -> float:
    ranks, metrics = assembly.ranks, config["metrics"]
    generator, trained = restore(config, assembly)
    sampler = assembly.sampler()
    preflight.check_sampler(sampler, generator, config["sampler"]["name"])
    scoring, lines = build_scoring(assembly, metrics, generator.image_shape)
    if ranks.leads:
        print(f"{directory.path} at step {trained.steps:,}", flush=True)
        for line in (preflight.describe_model(generator, sampler, config), *lines):
            print(f"  {line}", flush=True)
    reference = assembly.images(config["dataset"]["reference"])
    scoring.refer_to(reference, metrics["batch_size"])
    source = Source(
        generator,
        sampler,
        fit(sampler, generator, assembly),
        config["sampler"]["batch_size"],
        assembly.device,
        ranks,
    )
    share = metrics["n_samples"] * len(metrics["seeds"]) // ranks.world
    with Progress(share, "sampling", unit="image", visible=ranks.leads) as progress:
        scored = scoring.score(source, metrics["n_samples"], metrics["seeds"], progress)
    result = compose(config, typed.overrides, generator, reference, trained, scored, assembly.device)
    if ranks.leads:
        name = f"{config['sampler']['name']}-step{trained.steps}-{config_hash(config)[:12]}"
        folder = directory.path / "evaluations" / name
        write_samples(scored, folder / "samples", GRID_IMAGES)
        result.write(folder / "result.json")
        print(describe(result))
        print(f"  samples   {folder / 'samples' / 'grid.png'}")
        print(f"  record    {folder / 'result.json'}", flush=True)
    ranks.barrier()
    return result.metrics[0].value
