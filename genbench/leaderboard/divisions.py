"""What the closed division wants; every reason against at once.

A known data set, the very images everybody has, at its standard number of samples; metrics of listed
extractors against listed statistics; at least three training seeds trained equally long; a clean git tree;
no outside data; figures that are not better than real and no sign of memorisation. The *open* division takes
anything, declared.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

from genbench.configuration import SHOWN
from genbench.leaderboard.plausibility import too_good
from genbench.leaderboard.record import Result
from genbench.leaderboard.rules import SHIPPED_LAYER, SHIPPED_RESIZE, Rules, is_distance
from genbench.metrics.identity import digest_of, making

TRAINING_SEEDS = 3
"""Training seeds a closed submission needs, so that its spread means something."""


def closed_objections(results: Sequence[Result], outside_data: str | None, rules: Rules) -> list[str]:
    """Every reason why these results do not qualify for the closed division; empty where they do."""
    first, lines = results[0], []
    if len({result.training.seed for result in results}) < TRAINING_SEEDS:
        lines.append(f"{len(results)} training seed(s); at least {TRAINING_SEEDS} are needed")
    steps = sorted({result.training.steps for result in results})
    if 0 in steps:
        lines.append("the weights were not trained here, so nothing tells what they have seen")
    if len(steps) > 1:
        lines.append(f"the runs trained for different numbers of steps: {', '.join(map(str, steps))}")
    for one, other in combinations(results, 2):
        if values(one) == values(other):
            pair = f"{one.training.seed} and {other.training.seed}"
            lines.append(
                f"training seeds {pair} have the same metrics to the last bit: their runs are one run"
            )
    if outside_data is not None:
        lines.append(f"outside data were used: {outside_data}")
    for result in results:
        if result.git.commit is None or result.git.dirty is not False:
            state = "an unknown commit" if result.git.commit is None else "uncommitted changes"
            lines.append(f"seed {result.training.seed} ran with {state}; a clean git tree is needed")
    lines.extend(_track_objections(first, rules))
    unlisted = sorted({m.extractor or "" for r in results for m in r.metrics if not rules.listed(m)})
    lines.extend(f"the extractor {name} with these weights is not a listed one" for name in unlisted)
    lines.extend(_reference_objections(results, rules))
    lines.extend(f"seed {r.training.seed}: {line}" for r in results for line in too_good(r, rules))
    if not any(is_distance(metric.name) for metric in first.metrics):
        lines.append("no Fréchet distance (fid or fd_<extractor>) at the standard number of samples")
    return lines


def _reference_objections(results: Sequence[Result], rules: Rules) -> list[str]:
    """Distances of shipped extractors that are not against the statistics which come with them."""
    names = set()
    for metric in (metric for result in results for metric in result.metrics):
        card = rules.card(metric)
        if card is None:
            continue
        listed = making(
            images=card.train_sha256,
            split="train",
            count=card.n_train,
            extractor=card.name,
            weights=card.sha256,
            layer=SHIPPED_LAYER,
            resize=SHIPPED_RESIZE,
            quantiser=card.quantiser,
        )
        if metric.reference_sha256 != digest_of(listed):
            names.add(metric.name)
    return [f"the reference statistics of {name} are not listed ones" for name in sorted(names)]


def values(result: Result) -> list[tuple[str, float]]:
    """A result's metrics, by which runs are told apart: no two runs agree in them to the last bit."""
    return sorted((metric.name, metric.value) for metric in result.metrics)


def _track_objections(result: Result, rules: Rules) -> list[str]:
    dataset, standard = result.dataset, rules.standards.get(result.dataset.name)
    if standard is None or not standard.shared:
        return [f"the data set {dataset.name} is not one that everybody has"]
    facts = (
        ("resolution", dataset.resolution, standard.resolution),
        ("channels", dataset.channels, standard.channels),
        ("reference split", dataset.split, standard.reference),
        ("number of samples", result.sampling.n_samples, standard.n_samples),
    )
    lines = [
        f"{what} {found}; the standard for {dataset.name} is {expected}"
        for what, found, expected in facts
        if found != expected
    ]
    if standard.sha256 is not None and dataset.sha256 != standard.sha256:
        shown = f"{dataset.sha256[:SHOWN]}, expected {standard.sha256[:SHOWN]}"
        lines.append(f"other images than the {dataset.name} that everybody has: their SHA-256 is {shown}")
    return lines
