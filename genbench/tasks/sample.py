"""task=sample: images from a finished run, and a grid of the first.

format=png (the default) gives <run_dir>/samples/<sampler>-step<N>/, a folder of this sampler's images of
these weights and nothing else, format=npz the same beside it as one array. Either can be scored as it is,
here and by other suites; see `genbench.harness.exporting`. Images of other settings than the run's own have
names of their own, <sampler>-step<N>-<what was typed>-<hash>; the same typed again replaces what was there.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from genbench.cli import Typed
from genbench.configuration import SAMPLER_PARTS, SHOWN, config_hash
from genbench.contracts import UserError
from genbench.harness import preflight
from genbench.harness.assembly import Assembly, settle_precision
from genbench.harness.conclusion import source_of
from genbench.harness.distributed import Ranks, refuse_ranks, resolve_device
from genbench.harness.exporting import FORMATS
from genbench.harness.finished import recalled, restore, telling
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

    path = directory.samples / name_of(assembly.config, directory.config(), typed.now, trained.steps)
    before = set(directory.samples.glob("*"))
    with Progress(config["n"], "sampling", unit="image") as progress:
        written = FORMATS[config["format"]](drawing(progress), path)
    grid = save_grid(torch.cat(shown), path.with_name(f"{path.name}-grid.png"))
    print(
        f"{config['n']} images of {directory.path} at step {trained.steps:,} in {written}, together in {grid}"
    )
    if written in before:
        print(f"{written.name} held earlier images of the same settings, which these replace")


def name_of(config: Mapping[str, Any], saved: Mapping[str, Any], typed: Sequence[str], step: int) -> str:
    """What the images of `config` are called in the run whose own configuration is `saved`.

    typed: the overrides typed now. Where names are equal, sampler, seed and weights are.
    """
    name = f"{config['sampler']['name']}-step{step}"
    if (drawn := _drawn(config)) == _drawn(saved):
        return name
    told = telling(typed, {"sampler", *SAMPLER_PARTS, "metrics.seeds", "checkpoint"})
    return "-".join(filter(None, [name, told, drawn[:SHOWN]]))


def _drawn(config: Mapping[str, Any]) -> str:
    """A hash of what images depend on besides the run: sampler, evaluation seed, another's checkpoint."""
    checkpoint = config.get("checkpoint")
    parts = {"sampler": config["sampler"], "seed": config["metrics"]["seeds"][0]}
    return config_hash({**parts, "weights": None if checkpoint == "best" else checkpoint})
