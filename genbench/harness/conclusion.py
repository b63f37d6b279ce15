"""The end of a run or an evaluation: what the sampler learns, images drawn, scored, pictured and recorded.

Into a folder go samples/grid.png, samples/samples.npz (uint8 NHWC, as guided-diffusion's evaluator reads it),
the pictures a model has of its own (samples/<name>.png), fitted.safetensors where the sampler learnt
anything, and result.json.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

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
    assembly: Assembly, model: Generator, sampler: Sampler, batch_size: int | None = None
) -> Source:
    """`model` as it is sampled in this run: the sampler fitted, over all ranks.

    batch_size: images drawn at once, the configured sampler's where not given.
    """
    return Source(
        model,
        sampler,
        fit(sampler, model, assembly),
        batch_size or assembly.config["sampler"]["batch_size"],
        assembly.device,
        assembly.ranks,
    )


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
