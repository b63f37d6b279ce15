"""The leaderboard's rules, as data and as checks that give every reason at once.

A *track* is a data set at a resolution, the split it is scored against, a number of samples, conditional or
not; rows of one track are comparable. A row states its *budget class* by training images seen: S up to one
million, M up to twenty million, L above. The *closed* division wants a known data set at its standard
number of samples, metrics of listed extractors, at least three training seeds trained equally long, a clean
git tree and no outside data. The *open* division takes anything, declared.

What is standard for a data set is read from the configuration the runs use (conf/dataset/NAME.yaml), and
what is listed from the cards of the extractors genbench ships, so that nothing is stated twice.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import combinations
from pathlib import Path
from typing import Any, Literal

import genbench
from genbench.configuration import conf_dir, differences
from genbench.errors import UserError
from genbench.leaderboard.record import PUBLISHED, Metric, Result
from genbench.leaderboard.untrusted import read_json, read_yaml

TRAINING_SEEDS = 3
"""Training seeds a closed submission needs, so that its spread means something."""

BudgetClass = Literal["S", "M", "L"]

INCEPTION_WEIGHTS = "6726825d"
"""How the SHA-256 of the 2015-12-05 Inception weights, converted for torch, begins: publishers of torch
weights put these eight digits into the file's name."""


@dataclass(frozen=True, order=True)
class Track:
    """What rows must share to be comparable. `sha256` is that of the reference images."""

    dataset: str
    resolution: int
    split: str
    n_samples: int
    conditional: bool
    sha256: str


@dataclass(frozen=True)
class Standard:
    """What a data set's configuration promises; `shared` is whether everybody has the same images."""

    resolution: int
    channels: int
    reference: str
    n_samples: int
    shared: bool = True


@dataclass(frozen=True)
class Rules:
    """Standards by data set name, and the beginnings of listed extractors' SHA-256 by extractor name."""

    standards: Mapping[str, Standard]
    extractors: Mapping[str, str]

    def listed(self, metric: Metric) -> bool:
        """Whether a metric's extractor is a listed one (a metric without an extractor needs none)."""
        if metric.extractor is None or metric.extractor_sha256 is None:
            return True
        known = self.extractors.get(metric.extractor)
        return known is not None and metric.extractor_sha256.startswith(known)


@cache
def shipped_rules() -> Rules:
    """The rules of this installation: conf/dataset/*.yaml and the cards of the shipped extractors."""
    standards = {}
    for path in sorted((conf_dir() / "dataset").glob("*.yaml")):
        entry = read_yaml(path)
        if isinstance(entry, Mapping) and "n_samples" in entry and "name" in entry:
            standards[str(entry["name"])] = _standard(entry)
    extractors = {"inception": INCEPTION_WEIGHTS}
    for path in sorted((Path(genbench.__file__).parent / "metrics" / "shipped").glob("*.json")):
        extractors[path.stem] = str(read_json(path)["sha256"])
    return Rules(standards, extractors)


def _standard(entry: Mapping[str, Any]) -> Standard:
    resolution, channels = entry.get("resolution"), entry.get("channels")
    # A data set whose resolution or path the user must give is a folder of the user's own images.
    fixed = isinstance(resolution, int) and isinstance(channels, int) and "path" not in entry
    return Standard(
        resolution=resolution if isinstance(resolution, int) else 0,
        channels=channels if isinstance(channels, int) else 0,
        reference=str(entry.get("reference", "train")),
        n_samples=int(entry["n_samples"]),
        shared=fixed,
    )


def track(result: Result) -> Track:
    """The track a result belongs to."""
    dataset, sampling = result.dataset, result.sampling
    return Track(
        dataset.name,
        dataset.resolution,
        dataset.split,
        sampling.n_samples,
        sampling.conditional,
        dataset.sha256,
    )


def budget_class(images_seen: int) -> BudgetClass:
    """S, M or L by the number of training images seen, repetitions counted."""
    if images_seen <= 1_000_000:
        return "S"
    return "M" if images_seen <= 20_000_000 else "L"


def is_distance(name: str) -> bool:
    """Whether a metric is a Fréchet distance at its standard number of samples: `fid`, `fd_<extractor>`.

    What is extrapolated from one (`fd_infinity_<extractor>`) is another quantity: no track is sorted by it.
    """
    plain = name.startswith("fd_") and not name.startswith("fd_infinity_")
    return name == "fid" or (plain and "@" not in name)


def misnamed(result: Result, rules: Rules) -> list[str]:
    """Metrics whose name hides, or needlessly states, their number of samples, one line each.

    A small extractor's metric is bare at the data set's standard number of samples and only there; of data
    sets without a standard nothing can be said. (Published networks' names are checked by the record itself.)
    """
    standard = rules.standards.get(result.dataset.name)
    lines = []
    for metric in result.metrics:
        base, _, count = metric.name.partition("@")
        if standard is None or metric.extractor is None or metric.extractor in PUBLISHED:
            continue
        if (metric.n_samples == standard.n_samples) == bool(count):
            expected = base if count else f"{base}@{metric.n_samples}"
            lines.append(f"{metric.name} from {metric.n_samples} samples must be named {expected}")
    return lines


def disagreements(results: Sequence[Result]) -> list[str]:
    """Why results are not training seeds of one recipe measured alike, one line each; else empty."""
    first, lines = results[0], []
    seeds = [result.training.seed for result in results]
    for seed in sorted({seed for seed in seeds if seeds.count(seed) > 1}):
        lines.append(f"training seed {seed} occurs {seeds.count(seed)} times; every run needs its own")
    for other in results[1:]:
        pair = f"seed {first.training.seed} and seed {other.training.seed}"
        if other.group_hash != first.group_hash:
            old, new = ({k: v for k, v in r.config.items() if k != "seed"} for r in (first, other))
            lines.extend(f"{pair} differ in {line}" for line in differences(old, new) or ["group_hash"])
        for what, was, now in _measured_alike(first, other):
            if was != now:
                lines.append(f"{pair} differ in {what}: {was} -> {now}")
    return lines


def _measured_alike(first: Result, other: Result) -> list[tuple[str, object, object]]:
    pairs = [
        ("track", track(first), track(other)),
        ("model", first.model, other.model),
        ("weights", first.weights, other.weights),
        ("sampler", first.sampling.sampler, other.sampling.sampler),
        ("sampler.steps", first.sampling.steps, other.sampling.steps),
        ("evaluation seeds", first.sampling.seeds, other.sampling.seeds),
    ]
    old, new = ({m.name: m for m in result.metrics} for result in (first, other))
    pairs.append(("metrics", sorted(old), sorted(new)))
    unlike = {"value", "std", "split_std", "bootstrap_std"}
    for name in sorted(old.keys() & new.keys()):
        before, after = (m[name].model_dump(exclude=unlike) for m in (old, new))
        pairs.extend((f"{name}.{key}", before[key], after[key]) for key in before)
    return pairs


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
        if _values(one) == _values(other):
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
    if not any(is_distance(metric.name) for metric in first.metrics):
        lines.append("no Fréchet distance (fid or fd_<extractor>) at the standard number of samples")
    return lines


def _values(result: Result) -> list[tuple[str, float]]:
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
    return [
        f"{what} {found}; the standard for {dataset.name} is {expected}"
        for what, found, expected in facts
        if found != expected
    ]


def require_agreement(results: Sequence[Result]) -> None:
    """Raises UserError, with every difference, unless the results are training seeds of one recipe."""
    lines = disagreements(results)
    if lines:
        raise UserError(
            "These runs are not training seeds of one recipe measured alike:\n  "
            + "\n  ".join(lines)
            + "\nSubmit runs that differ in seed=... only."
        )
