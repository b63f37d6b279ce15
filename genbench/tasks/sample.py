"""task=sample: images from a finished run, and a grid of the first.

format=png (the default) gives <run_dir>/samples/<sampler>-step<N>/, a folder of this sampler's images of
these weights and nothing else, format=npz the same beside it as one array. Either can be scored as it is,
here and by other suites; see `genbench.harness.exporting`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from genbench.cli import Typed
from genbench.contracts import UserError
from genbench.harness import preflight
from genbench.harness.assembly import Assembly, settle_precision
from genbench.harness.conclusion import source_of
from genbench.harness.distributed import Ranks, refuse_ranks, resolve_device
from genbench.harness.exporting import FORMATS
from genbench.harness.finished import recalled, restore
from genbench.harness.pictures import save_grid
from genbench.harness.progress import Progress
from genbench.harness.rundir import RunDirectory
from genbench.harness.sampling import Drawn
from genbench.words import key_of

GRID = 256
"""Images the grid shows at most."""


def run(config: dict[str, Any], typed: Typed) -> None:
    """Draws `n` images with the first evaluation seed; image i is the same whatever n is."""
    if config["format"] not in FORMATS:
        raise UserError(f"format={config['format']}: type format={' or format='.join(FORMATS)}.")
    directory = RunDirectory(Path(config["run_dir"]))
    config = recalled(config, [key_of(override) for override in typed.now])
    refuse_ranks("sample")
    device = resolve_device(config["device"])
    assembly = Assembly(settle_precision(config, device), device, Ranks())
    generator, trained = restore(config, assembly)
    sampler = assembly.sampler()
    preflight.check_sampler(sampler, generator, config["sampler"]["name"])
    if not directory.started:
        directory.examine(assembly.config, grows=False)
        directory.claim(assembly.config, typed.overrides)
    source = source_of(assembly, generator, sampler)
    shown: list[Tensor] = []

    def drawing(progress: Progress) -> Iterator[Drawn]:
        for drawn in source.draw(config["n"], config["metrics"]["seeds"][0]):
            room = GRID - sum(map(len, shown))
            shown.append(drawn.images[:room].cpu())
            progress.update(len(drawn.index))
            yield drawn

    path = directory.samples / f"{config['sampler']['name']}-step{trained.steps}"
    with Progress(config["n"], "sampling", unit="image") as progress:
        written = FORMATS[config["format"]](drawing(progress), path)
    grid = save_grid(torch.cat(shown), path.with_name(f"{path.name}-grid.png"))
    print(
        f"{config['n']} images of {directory.path} at step {trained.steps:,} in {written}, together in {grid}"
    )
