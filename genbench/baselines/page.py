"""baselines/README.md: what the recipes gave here, and beside it what was published. Generated, never edited.

Nothing but the records and `published.json` goes into it, so the same records give the same bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from genbench.baselines.shelf import CURVES, GRID, QUALITY, RESULT, Baseline, baselines
from genbench.leaderboard.numerals import amount, duration, figure
from genbench.leaderboard.published import EVIDENCE, published
from genbench.leaderboard.submission import MetricFigures
from genbench.metrics.card import closed, standing


@dataclass(frozen=True)
class Row:
    """A baseline and the figures that its line shows; None where it has none."""

    baseline: Baseline

    @property
    def distance(self) -> MetricFigures | None:
        """The Fréchet distance of the data set's own extractor, or Inception's."""
        return self._metric(f"fd_{self.baseline.dataset}") or self._metric("fid")

    @property
    def inception_score(self) -> MetricFigures | None:
        """The Inception Score of the same extractor."""
        return self._metric(f"is_{self.baseline.dataset}") or self._metric("is")

    @property
    def bits(self) -> MetricFigures | None:
        """Bits per dimension, or a bound."""
        return self._metric("bpd") or self._metric("bpd_bound")

    @property
    def published(self) -> MetricFigures | None:
        """What may stand beside a published figure: Inception's distance, else bits per dimension."""
        return self._metric("fid") or self.bits

    @property
    def rank(self) -> float:
        """The best distance first, those without one last."""
        return float("inf") if self.distance is None else self.distance.mean

    @property
    def share(self) -> str:
        """How far the distance is from a per-pixel Gaussian to unseen real images."""
        distance = self.distance
        if distance is None:
            return ""
        (extractor,) = (m.extractor for m in self.baseline.first.metrics if m.name == distance.name)
        card = standing(distance.name, extractor)
        return "" if card is None else f"{closed(distance.mean, card):.0%}"

    def _metric(self, name: str) -> MetricFigures | None:
        """By its name, with whatever number of samples behind it."""
        return next((m for m in self.baseline.figures.metrics if m.name.partition("@")[0] == name), None)


def page(root: Path) -> str:
    """The page for all records under `root`."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=False,  # Markdown of our own records
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(amount=amount, duration=duration, score=score)
    recorded = baselines(root)
    shelves = [_shelf(name, list(own)) for name, own in groupby(recorded, key=lambda each: each.dataset)]
    rows = sorted((row for row in published() if row.experiment), key=lambda row: row.experiment or "")
    here = {baseline.name: Row(baseline).published for baseline in recorded}
    return environment.get_template("page.md.j2").render(
        shelves=shelves,
        references=[(row, here.get(row.experiment or "")) for row in rows],
        evidence=EVIDENCE,
        curves=CURVES,
        grid=GRID,
        result=RESULT,
        quality=QUALITY,
    )


def _shelf(dataset: str, members: Sequence[Baseline]) -> dict[str, Any]:
    rows = [Row(baseline) for baseline in members]
    return {
        "dataset": dataset,
        "rows": sorted(rows, key=lambda row: row.rank),
        "distances": sorted({f"`{row.distance.name}`" for row in rows if row.distance is not None}),
        "counts": [f"{count:,}" for count in sorted({b.figures.n_samples for b in members})],
        "devices": sorted({device for b in members for device in b.figures.devices}),
    }


def score(metric: MetricFigures | None) -> str:
    """Mean ± spread; a bound as one; the name where it says how many samples there were."""
    if metric is None:
        return ""
    bound = "≤ " if metric.name.startswith("bpd_bound") else ""
    count = f" `{metric.name}`" if "@" in metric.name else ""
    return f"{bound}{figure(metric)}{count}"
