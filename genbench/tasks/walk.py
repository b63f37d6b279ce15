"""task=walk: a few test images destroyed by the model's corruption and restored by its sampler, as a picture.

One row an image, time from left to right: x_0 ... x_1 destroyed, then the sampler's way back from that same
x_1. What is hidden by a mask is blue. Writes <run_dir>/samples/walk.png; with walk.beside=[RUN, RUN, ...] one
row a run, of the same image, to walks.png.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from genbench.cli import Typed
from genbench.contracts import ClassConditional, Denoises, Posterior, UserError
from genbench.corruptions.masking import HIDDEN
from genbench.harness import preflight
from genbench.harness.assembly import Assembly, settle_precision
from genbench.harness.distributed import Ranks, refuse_ranks, resolve_device
from genbench.harness.finished import overlay, restore
from genbench.harness.fitting import fit
from genbench.harness.pictures import save_grid, save_labelled
from genbench.harness.rundir import RunDirectory
from genbench.ops.quantize import dequantize, quantize
from genbench.ops.random import Keys
from genbench.words import key_of

MOST = 16
"""Rows of the picture at most; fewer where `n` is smaller."""
SHOWN = 9
"""Times shown on the way there, and as many on the way back, which share x_1."""
COLUMNS = 2 * SHOWN - 1
BLUE = (-0.6, -0.2, 0.5)


class Observed:
    """A denoiser that starts from given images and remembers what it was asked about."""

    def __init__(self, model: Any, start: Tensor) -> None:
        self._model = model
        self.corruption = copy.copy(model.corruption)
        self.corruption.terminal = lambda shape, randomness, fitted: start.clone()
        self._start = start
        self.seen: list[Tensor] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def denoise(self, x_t: Tensor, t: Tensor, labels: Tensor | None = None) -> Posterior:
        """The model's own answer."""
        if x_t.shape != self._start.shape:
            raise UserError(
                "task=walk follows all images at once, and this sampler takes other steps for each. "
                "Type another, such as sampler=euler."
            )
        self.seen.append(x_t.clone())
        return self._model.denoise(x_t, t, labels)


def run(config: dict[str, Any], typed: Typed) -> None:
    """Draws the picture with the first evaluation seed and says where it is."""
    refuse_ranks("walk")
    runs = [Path(run) for run in (config["run_dir"], *config["walk"]["beside"])]
    count = min(config["n"], MOST if len(runs) == 1 else 1)
    now = [key_of(override) for override in typed.now]
    walks = [quantize(_walked(run, config, now, count)) for run in runs]
    if len(sizes := {tuple(walk.shape[-2:]) for walk in walks}) > 1:
        raise UserError(f"walk.beside: runs on images of one size fit on a sheet, found {sorted(sizes)}.")
    rows = torch.cat(walks)
    folder = RunDirectory(runs[0]).samples
    if len(runs) == 1:
        path = save_grid(rows, folder / "walk.png", COLUMNS)
    else:
        path = save_labelled(rows, [_name(run) for run in runs], folder / "walks.png", COLUMNS)
    print(f"{len(rows) // COLUMNS} images on their way there and back: {path}")


def _name(run: Path) -> str:
    """The corruption that was typed for a run, else its model."""
    directory = RunDirectory(run)
    typed = (each.partition("=") for each in directory.overrides())
    chosen = [value for key, _, value in typed if key == "corruption"]
    return chosen[-1] if chosen else directory.config()["model"]["name"]


def _walked(run: Path, composed: dict[str, Any], typed: list[str], count: int) -> Tensor:
    """`count` rows of `COLUMNS` images, float32 [count * COLUMNS, 3, H, W]."""
    config = {**overlay(RunDirectory(run).config(), composed, typed), "run_dir": str(run)}
    device = resolve_device(config["device"])
    assembly = Assembly(settle_precision(config, device), device, Ranks())
    generator, _ = restore(config, assembly)
    if not isinstance(generator, Denoises):
        raise UserError(f"task=walk shows a corruption undone, and {config['model']['name']} has none.")
    sampler = assembly.sampler()
    preflight.check_sampler(sampler, generator, config["sampler"]["name"])
    test = assembly.images("test")
    x0 = dequantize(test.images[:count])
    conditional = isinstance(generator, ClassConditional) and generator.classes > 0
    labels = test.labels[:count] if conditional and test.labels is not None else None
    keys = Keys(torch.arange(count, device=device), config["metrics"]["seeds"][0])
    inference = assembly.inference()
    with inference.of(generator):
        fitted = fit(sampler, generator, assembly)
    with torch.inference_mode(), inference.of(generator):
        noise = generator.corruption.draw(x0.shape, keys)
        times = torch.linspace(0, 1, SHOWN, dtype=torch.float64)
        if generator.corruption.steps is not None:
            times = (times * generator.corruption.steps).round() / generator.corruption.steps
        there = [generator.corruption.apply(x0, noise, t) for t in times]
        observed = Observed(generator, there[-1])
        images = sampler(observed, keys, labels, fitted).images
    places = torch.linspace(0, len(observed.seen), SHOWN).round().long().tolist()
    back = [[*observed.seen, images][place] for place in places[1:]]
    return torch.stack([_visible(x) for x in (*there, *back)], dim=1).flatten(0, 1)


def _visible(x: Tensor) -> Tensor:
    """[B, 3, H, W], whatever is hidden in blue."""
    colours = x.expand(-1, 3, -1, -1)
    blue = torch.tensor(BLUE, device=x.device)[:, None, None].expand_as(colours)
    return torch.where(colours == HIDDEN, blue, colours)
