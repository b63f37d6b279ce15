"""task=sample: images from a finished run, as PNG files in <run_dir>/samples/<sampler>-step<N>/, and a grid.

The folder holds this sampler's images of these weights and nothing else, so that it can be scored as it is.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from PIL import Image

from genbench.cli import Typed, key_of
from genbench.harness import preflight
from genbench.harness.assembly import Assembly
from genbench.harness.distributed import Ranks, refuse_ranks, resolve_device
from genbench.harness.finished import overlay, restore
from genbench.harness.fitting import fit
from genbench.harness.pictures import save_grid
from genbench.harness.progress import Progress
from genbench.harness.rundir import RunDirectory
from genbench.harness.sampling import Source


def run(config: dict[str, Any], typed: Typed) -> None:
    """Draws `n` images with the first evaluation seed; image i is the same whatever n is."""
    directory = RunDirectory(Path(config["run_dir"]))
    config = overlay(directory.config(), config, [key_of(override) for override in typed.now])
    refuse_ranks("sample")
    device = resolve_device(config["device"])
    assembly = Assembly(config, device, Ranks())
    generator, trained = restore(config, assembly)
    sampler = assembly.sampler()
    preflight.check_sampler(sampler, generator, config["sampler"]["name"])
    source = Source(
        generator, sampler, fit(sampler, generator, assembly), config["sampler"]["batch_size"], device
    )
    folder = directory.samples / f"{config['sampler']['name']}-step{trained.steps}"
    folder.mkdir(parents=True, exist_ok=True)
    for earlier in folder.glob("*.png"):
        earlier.unlink()
    chunks = []
    with Progress(config["n"], "sampling", unit="image") as progress:
        for drawn in source.draw(config["n"], config["metrics"]["seeds"][0]):
            for index, image in zip(drawn.index.tolist(), drawn.images.cpu(), strict=True):
                pixels = image.permute(1, 2, 0).numpy()
                picture = Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
                picture.save(folder / f"{index:06d}.png")
            chunks.append(drawn.images.cpu())
            progress.update(len(drawn.index))
    grid = save_grid(torch.cat(chunks)[:256], folder.with_name(f"{folder.name}-grid.png"))
    print(
        f"{config['n']} images of {directory.path} at step {trained.steps:,} in {folder}, together in {grid}"
    )
