"""What index.html is made of, as plain values: tracks with their rows, published rows, configurations, grids.

Every number comes with the text that shows it, so that both pages read alike: a quantity is [value, text], a
metric [mean, spread over training seeds, text, text of the evaluation-seed spread]. A row is a list in the
order of `FIELDS`. Values are rounded to six digits, which is more than is shown.

Configurations share what they have in common: `nodes` lists every distinct value, a mapping or list as the
positions of its parts, and a row names its configuration's position. Ten thousand configurations that differ
in one number take 3 MB instead of 20.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from genbench.leaderboard.grids import sample_grids
from genbench.leaderboard.numerals import amount, duration, figure, own_spread, seconds
from genbench.leaderboard.published import BETTER, EVIDENCE, Published, published
from genbench.leaderboard.reproducing import command
from genbench.leaderboard.rules import Track
from genbench.leaderboard.standings import Row, Table
from genbench.leaderboard.submission import MetricFigures, plain

FIELDS = (
    "rank",
    "tied",
    "model",
    "variant",
    "family",
    "sampler",
    "steps",
    "weights",
    "division",
    "submitter",
    "date",
    "note",
    "outside",
    "place",
    "nfe",
    "images",
    "budget",
    "parameters",
    "training",
    "sampling",
    "devices",
    "seeds",
    "evaluation",
    "metrics",
    "commits",
    "command",
    "results",
    "config",
    "hash",
    "image",
    "marks",
)
"""What a row of the data holds, in order."""


def payload(tables: Sequence[Table], root: Path) -> dict[str, Any]:
    """The page's data: tracks with their rows and the published ones, and the nodes of configurations."""
    nodes = Nodes()
    images = sample_grids(tables, root)
    tracks = [_track(table, nodes, images) for table in tables]
    shown = {(t.track.dataset, t.track.resolution, t.track.conditional) for t in tables}
    for about in dict.fromkeys(row.about for row in published()):
        if about not in shown:
            tracks.append(_published_track(about))
    return {"fields": FIELDS, "tracks": tracks, "evidence": EVIDENCE, "nodes": nodes.values}


def _track(table: Table, nodes: Nodes, images: Mapping[str, str]) -> dict[str, Any]:
    track = table.track
    references = _references(track.dataset, track.resolution, track.conditional)
    metrics = {metric.name: metric.better for metric in table.metrics}
    metrics |= {name: BETTER[name] for row in references for name in row.metrics if name not in metrics}
    names = list(metrics)
    return {
        "id": identity(track),
        "dataset": track.dataset,
        "resolution": track.resolution,
        "conditional": track.conditional,
        "split": track.split,
        "samples": track.n_samples,
        "sha256": track.sha256,
        "main": table.main,
        "metrics": [[name, better] for name, better in metrics.items()],
        "rows": [_row(row, names, nodes, images.get(row.place)) for row in table.rows],
        "published": [_reference(row, names) for row in references],
    }


def identity(track: Track) -> str:
    """A track's name in addresses, the same whatever other tracks there are."""
    conditional = "conditional-" if track.conditional else ""
    split = "" if track.split == "train" else f"{plain(track.split)}-"
    return (
        f"{plain(track.dataset)}-{track.resolution}-{conditional}{split}{track.n_samples}-{track.sha256[:8]}"
    )


def _published_track(about: tuple[str, int, bool]) -> dict[str, Any]:
    """A track of which there are published results only."""
    dataset, resolution, conditional = about
    references = _references(*about)
    names = [name for name in BETTER if any(name in row.metrics for row in references)]
    return {
        "id": f"{plain(dataset)}-{resolution}-{'conditional-' if conditional else ''}published",
        "dataset": dataset,
        "resolution": resolution,
        "conditional": conditional,
        "split": None,
        "samples": None,
        "sha256": None,
        "main": names[0],
        "metrics": [[name, BETTER[name]] for name in names],
        "rows": [],
        "published": [_reference(row, names) for row in references],
    }


def _references(dataset: str, resolution: int, conditional: bool) -> list[Published]:
    return [row for row in published() if row.about == (dataset, resolution, conditional)]


def _reference(row: Published, names: Sequence[str]) -> dict[str, Any]:
    return {
        "method": row.method,
        "nfe": row.nfe and [row.nfe, f"{row.nfe:,}"],
        "metrics": [
            [row.metrics[name].value, None, row.metrics[name].text, None] if name in row.metrics else None
            for name in names
        ],
        "evidence": row.evidence,
        "source": row.source,
        "arxiv": row.arxiv,
        "protocol": row.protocol,
    }


def _row(row: Row, names: Sequence[str], nodes: Nodes, image: str | None) -> list[Any]:
    shown = row.figures
    values = {
        "rank": row.rank,
        "tied": int(row.tied),
        "model": shown.model,
        "family": shown.family,
        "variant": row.variant,
        "sampler": shown.sampler,
        "steps": shown.sampler_steps,
        "weights": shown.weights,
        "division": row.division,
        "submitter": row.submitter,
        "date": row.date,
        "note": row.note,
        "outside": row.outside_data,
        "place": row.address,
        "nfe": [_short(shown.nfe), f"{shown.nfe:.4g}"],
        "images": [shown.images_seen, amount(shown.images_seen)],
        "budget": shown.budget_class,
        "parameters": [shown.parameters, amount(shown.parameters)],
        "training": [_short(shown.device_seconds), duration(shown.device_seconds)],
        "sampling": [_short(shown.seconds_per_image), seconds(shown.seconds_per_image)],
        "devices": shown.devices,
        "seeds": shown.training_seeds,
        "evaluation": shown.evaluation_seeds,
        "metrics": [_metric(row.metric(name)) for name in names],
        "commits": row.commits,
        "command": command(row),
        "results": row.results,
        "config": nodes.add(json.loads(row.config)),
        "hash": row.group_hash[:12],
        "image": image,
        "marks": row.marks,
    }
    return [values[field] for field in FIELDS]


def _metric(metric: MetricFigures | None) -> list[Any] | None:
    if metric is None:
        return None
    return [
        _short(metric.mean),
        None if metric.std is None else _short(metric.std),
        figure(metric),
        own_spread(metric),
    ]


def _short(value: float) -> float:
    return float(f"{value:.6g}")


class Nodes:
    """Distinct plain values, each once: a mapping or list holds the positions of its parts."""

    def __init__(self) -> None:
        self.values: list[Any] = []
        self._positions: dict[Any, int] = {}

    def add(self, value: Any) -> int:
        """The position of `value`, added with all its parts where it is new."""
        key: Any
        if isinstance(value, dict):
            value = {name: self.add(value[name]) for name in sorted(value)}
            key = tuple(value.items())
        elif isinstance(value, list):
            value = [self.add(inner) for inner in value]
            key = ("list", *value)
        else:
            key = (type(value), repr(value))  # tells 1, 1.0 and true apart, as == does not
        if key not in self._positions:
            self._positions[key] = len(self.values)
            self.values.append(value)
        return self._positions[key]
