"""Sample grids as PNG files."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import torch
from hydra.utils import instantiate
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from genbench.contracts import Generator, Illustrates
from genbench.harness.assembly import Assembly
from genbench.ops.quantize import dequantize, quantize

SMALLEST_TILE = 32
"""Images are enlarged by a whole factor to at least this many pixels, so that 8x8 digits can be seen."""


def grid(images: Tensor, columns: int | None = None, gap: int = 2) -> Image.Image:
    """A picture of uint8 images [N, C, H, W] (C is 1 or 3) in rows of `columns`, about square by default."""
    count, _, height, width = images.shape
    columns = columns or math.ceil(math.sqrt(count))
    rows = math.ceil(count / columns)
    scale = max(1, math.ceil(SMALLEST_TILE / max(height, width)))
    tiles = images.cpu().repeat_interleave(scale, -1).repeat_interleave(scale, -2)
    height, width = height * scale, width * scale
    canvas = torch.full(
        (3, rows * (height + gap) + gap, columns * (width + gap) + gap), 255, dtype=torch.uint8
    )
    for i, tile in enumerate(tiles):
        top, left = gap + (i // columns) * (height + gap), gap + (i % columns) * (width + gap)
        canvas[:, top : top + height, left : left + width] = tile.expand(3, -1, -1)
    return Image.fromarray(canvas.permute(1, 2, 0).numpy())


ILLUSTRATED = 16
"""How many real images a model is given to make its own pictures of."""


@torch.inference_mode()
def illustrate(model: Generator, assembly: Assembly, folder: Path, prefix: str = "") -> dict[str, Path]:
    """Writes the pictures `model` has of its own to `folder`/<prefix><name>.png; their paths by name.

    They are made of test images where these are at hand, else of the reference split. On other ranks than the
    leading one nothing is done, and nothing here waits for them.
    """
    if not isinstance(model, Illustrates) or not assembly.ranks.leads:
        return {}
    source = instantiate(assembly.config["dataset"]["source"])
    at_hand = source.present(assembly.data_root, "test")
    # The reference split is in memory already, on every rank; the test split is this rank's alone.
    reference = assembly.config["dataset"]["reference"]
    real = source.load(assembly.data_root, "test") if at_hand else assembly.images(reference)
    real = real.to(assembly.device)
    model.eval()
    labels = None if real.labels is None else real.labels[:ILLUSTRATED]
    return {
        name: save_grid(quantize(picture.images), folder / f"{prefix}{name}.png", picture.columns)
        for name, picture in model.illustrate(dequantize(real.images[:ILLUSTRATED]), labels).items()
    }


def save_grid(images: Tensor, path: Path, columns: int | None = None) -> Path:
    """Writes `grid` to `path`, making its folder; returns the path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    grid(images, columns).save(path)
    return path


def save_labelled(images: Tensor, names: Sequence[str], path: Path, columns: int) -> Path:
    """The same with a name at the left of every row."""
    font = ImageFont.load_default(14)
    rows = grid(images, columns)
    margin = 10 + max(int(font.getlength(name)) for name in names)
    canvas = Image.new("RGB", (rows.width + margin, rows.height), "white")
    canvas.paste(rows, (margin, 0))
    draw = ImageDraw.Draw(canvas)
    for place, name in enumerate(names):
        draw.text((5, (place + 0.5) * rows.height / len(names)), name, fill="black", font=font, anchor="lm")
    path.parent.mkdir(parents=True, exist_ok=True)
    canvas.save(path)
    return path
