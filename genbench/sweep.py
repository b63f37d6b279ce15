"""The jobs of a multirun together: what each recipe scored over its training seeds, and their grids."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from genbench.leaderboard.record import Result
from genbench.leaderboard.submission import figures

CARRIED_OUT = ("seed=", "run_dir=", "logger=", "device=", "data_root=", "budget=")
"""Overrides that do not tell one recipe from another."""


@dataclass(frozen=True)
class Recipe:
    """The runs of one configuration, which differ in their training seeds alone.

    title: model, data set and what was typed for it alone; told: only the last of these, where there is any.
    """

    title: str
    told: str
    runs: Sequence[Path]
    results: Sequence[Result]


def recipes(runs: Sequence[Path]) -> list[Recipe]:
    """The runs by recipe, in order; titles say what was typed for one recipe and not for all."""
    groups: dict[str, list[tuple[Path, Result]]] = {}
    for run in runs:
        result = Result.read(run / "result.json")
        groups.setdefault(result.group_hash, []).append((run, result))
    typed = [_told(members[0][1]) for members in groups.values()]
    shared = set.intersection(*map(set, typed)) if len(typed) > 1 else set()
    found = []
    for members, overrides in zip(groups.values(), typed, strict=True):
        first = members[0][1]
        base = f"{first.model.name} on {first.dataset.name}"
        own = [o for o in overrides if o not in shared and not o.startswith(("model=", "dataset="))]
        paths, results = [run for run, _ in members], [result for _, result in members]
        found.append(Recipe(", ".join([base, *own]), ", ".join(own) or base, paths, results))
    return found


def _told(result: Result) -> list[str]:
    return [override for override in result.command if not override.startswith(CARRIED_OUT)]


def summary(runs: Sequence[Path]) -> str:
    """The training seeds of each recipe together, mean and spread, and how to make them a leaderboard row."""
    lines = []
    for recipe in recipes(runs):
        lines.append(f"{recipe.title}, {len(recipe.runs)} training seed(s)")
        for metric in figures(recipe.results).metrics:
            spread = "" if metric.std is None else f" ± {metric.std:.3g}"
            lines.append(f"  {metric.name:<22} {metric.mean:.4g}{spread}")
        paths = " ".join(str(run) for run in recipe.runs)
        lines.append(f"  as a leaderboard row: python -m genbench.leaderboard submit {paths}")
    return "\n".join(lines)


def sheet(runs: Sequence[Path], path: Path, columns: int = 4, gap: int = 12) -> Path:
    """One picture of every recipe's sample grid (its first run's) under its name and mean main score."""
    tiles = []
    for recipe in recipes(runs):
        name = recipe.results[0].metrics[0].name
        (metric,) = [each for each in figures(recipe.results).metrics if each.name == name]
        text = f"{recipe.told.removeprefix('experiment=')}: {name} {metric.mean:.3g}"
        tiles.append((text, recipe.runs[0] / "samples" / "grid.png"))
    grids = [Image.open(file).convert("RGB") for _, file in tiles]
    width, height = max(grid.width for grid in grids), max(grid.height for grid in grids)
    columns = min(columns, len(grids))
    rows, title = -(-len(grids) // columns), 20
    canvas = Image.new("RGB", (columns * (width + gap) + gap, rows * (height + title + gap) + gap), "white")
    draw = ImageDraw.Draw(canvas)
    for place, ((text, _), grid) in enumerate(zip(tiles, grids, strict=True)):
        left = gap + place % columns * (width + gap)
        top = gap + place // columns * (height + title + gap)
        draw.text((left, top), text, fill="black", font=_fitting(text, width))
        canvas.paste(grid, (left, top + title))
    path.parent.mkdir(parents=True, exist_ok=True)
    canvas.save(path)
    return path


def _fitting(text: str, width: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """The largest font, 14 to 8 pixels, in which `text` is no wider than `width`; the smallest at worst."""
    fonts = [ImageFont.load_default(size) for size in range(14, 7, -1)]
    return next((font for font in fonts if font.getlength(text) <= width), fonts[-1])
