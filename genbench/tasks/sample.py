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
from genbench.harness.assembly import Assembly, settle_precision
from genbench.harness.conclusion import source_of
from genbench.harness.distributed import Ranks, refuse_ranks, resolve_device
from genbench.harness.finished import overlay, restore
from genbench.harness.pictures import save_grid
from genbench.harness.progress import Progress
from genbench.harness.rundir import RunDirectory

GRID_IMAGES = 256
"""How many of the images the grid shows."""


def run(config: dict[str, Any], typed: Typed) -> None:
    """Draws `n` images with the first evaluation seed; image i is the same whatever n is."""
    directory = RunDirectory(Path(config["run_dir"]))
    config = overlay(directory.config(), config, [key_of(override) for override in typed.now])
    refuse_ranks("sample")
    device = resolve_device(config["device"])
    assembly = Assembly(settle_precision(config, device), device, Ranks())
    generator, trained = restore(config, assembly)
    sampler = assembly.sampler()
    preflight.check_sampler(sampler, generator, config["sampler"]["name"])
    source = source_of(assembly, generator, sampler)
    folder = directory.samples / f"{config['sampler']['name']}-step{trained.steps}"
    folder.mkdir(parents=True, exist_ok=True)
    for earlier in folder.glob("*.png"):
        earlier.unlink()
    shown: list[torch.Tensor] = []
    with Progress(config["n"], "sampling", unit="image") as progress:
        for drawn in source.draw(config["n"], config["metrics"]["seeds"][0]):
            images = drawn.images.cpu()
            for index, image in zip(drawn.index.tolist(), images, strict=True):
                pixels = image.permute(1, 2, 0).numpy()
                picture = Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
                picture.save(folder / f"{index:06d}.png")
            shown += images[: GRID_IMAGES - len(shown)]
            progress.update(len(drawn.index))
    grid = save_grid(torch.stack(shown), folder.with_name(f"{folder.name}-grid.png"))
    print(
        f"{config['n']} images of {directory.path} at step {trained.steps:,} in {folder}, together in {grid}"
    )
