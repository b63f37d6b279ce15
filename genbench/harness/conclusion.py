"""The end of a run or an evaluation: what the sampler learns, images drawn, scored, pictured and recorded.

Into a folder go samples/grid.png, samples/samples.npz (uint8 NHWC, as guided-diffusion's evaluator reads it),
the pictures a model has of its own (samples/<name>.png), fitted.safetensors where the sampler learnt
anything, and result.json.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from safetensors.torch import save_file

from genbench.contracts import Generator, Sampler
from genbench.harness.assembly import Assembly
from genbench.harness.exporting import save_npz
from genbench.harness.fitting import fit
from genbench.harness.likelihood import measure_likelihood
from genbench.harness.pictures import illustrate, save_grid
from genbench.harness.progress import Progress
from genbench.harness.recording import Trained, compose
from genbench.harness.sampling import Source
from genbench.harness.scoring import Scoring
from genbench.leaderboard.record import Result

GRID_IMAGES = 64
"""How many samples a grid shows."""


def source_of(
    assembly: Assembly, model: Generator, sampler: Sampler, settings: Mapping[str, Any] | None = None
) -> Source:
    """`model` as it is sampled in this run: the sampler fitted, over all ranks.

    settings: the sampler's node of a configuration, the configured one where not given.
    """
    settings = assembly.config["sampler"] if settings is None else settings
    inference = assembly.inference(settings)
    # What is learnt is about the networks as they will be evaluated.
    with inference.of(model):
        fitted = fit(sampler, model, assembly)
    return Source(model, sampler, fitted, settings["batch_size"], assembly.device, assembly.ranks, inference)


def conclude(
    assembly: Assembly,
    command: Sequence[str],
    model: Generator,
    sampler: Sampler,
    scoring: Scoring,
    trained: Trained,
    folder: Path,
    progress: Callable[[int, str, str], Progress],
) -> tuple[Result, dict[str, Path]]:
    """Draws and scores what the configuration asks for and leaves it in `folder`; also pictures, by name.

    progress: (total, title, unit) -> the bar that is shown meanwhile. Every rank calls this.
    """
    config, ranks = assembly.config, assembly.ranks
    metrics = config["metrics"]
    source = source_of(assembly, model, sampler)
    folder.mkdir(parents=True, exist_ok=True)
    share = metrics["n_samples"] * len(metrics["seeds"]) // ranks.world
    with progress(share, "sampling", "image") as bar:
        scored = scoring.score(source, metrics["n_samples"], metrics["seeds"], bar)
    scored = replace(scored, metrics=[*scored.metrics, *measure_likelihood(assembly, model)])
    reference = assembly.images(config["dataset"]["reference"])
    result = compose(config, command, model, reference, trained, scored, assembly.device)
    pictures: dict[str, Path] = {}
    if ranks.leads:
        # The record first: what comes after can be had again from the run, scores only by sampling anew.
        if source.fitted:
            tensors = {name: value.cpu().contiguous() for name, value in source.fitted.items()}
            save_file(tensors, folder / "fitted.safetensors")
        result.write(folder / "result.json")
        pictures["samples"] = save_grid(scored.images[:GRID_IMAGES], folder / "samples" / "grid.png")
        save_npz(folder / "samples" / "samples.npz", scored.images)
        pictures |= illustrate(model, assembly, folder / "samples")
    ranks.barrier()
    return result, pictures
