"""The leaderboard's rules, as data, and what belongs together under them.

A *track* is a data set at a resolution, the split it is scored against, a number of samples, conditional or
not; rows of one track are comparable. A row states its *budget class* by training images seen: S up to one
million, M up to twenty million, L above. What the closed division wants: `genbench.leaderboard.divisions`.

What is standard for a data set is read from the configuration the runs use (conf/dataset/NAME.yaml), and
what is listed from the cards of the extractors genbench ships, so that nothing is stated twice. Of published
networks Inception and CLIP are listed: their publishers say what their files hash to, DINOv2's do not.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Literal

from genbench.configuration import conf_dir, differences
from genbench.errors import UserError
from genbench.leaderboard.record import PUBLISHED, Metric, Result
from genbench.leaderboard.untrusted import read_yaml
from genbench.metrics.card import SHIPPED, Card
from genbench.metrics.identity import digest_of, making

BudgetClass = Literal["S", "M", "L"]

INCEPTION_WEIGHTS = "6726825d"
"""How the SHA-256 of the 2015-12-05 Inception weights, converted for torch, begins: publishers of torch
weights put these eight digits into the file's name."""

CLIP_WEIGHTS = "3035c92b350959924f9f00213499208652fc7ea050643e8b385c2dac08641f02"
"""SHA-256 of CLIP's ViT-L/14 of 336 pixels: OpenAI puts it into the file's address."""

LAYERS = {"inception": "2048", "dinov2": "dinov2"}
"""The layer of which published networks' Fréchet distance is."""

SHIPPED_LAYER, SHIPPED_RESIZE = "pool", "none"
"""The layer of which a shipped extractor's distance is, and what it does to images before."""


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
    """What a data set's configuration promises; `shared` is whether everybody has the same images.

    `sha256` is the content hash of the reference split, where a shipped extractor's card states it.
    """

    resolution: int
    channels: int
    reference: str
    n_samples: int
    shared: bool = True
    sha256: str | None = None


@dataclass(frozen=True)
class Rules:
    """Standards by data set name, and the beginnings of listed extractors' SHA-256 by extractor name.

    `layers` are those of which extractors' distances are; `cards` the shipped extractors' cards (the moments
    of their training splits lie beside them, see `genbench.metrics.packed`).
    """

    standards: Mapping[str, Standard]
    extractors: Mapping[str, str]
    layers: Mapping[str, str] = field(default_factory=dict)
    cards: Mapping[str, Card] = field(default_factory=dict)

    def listed(self, metric: Metric) -> bool:
        """Whether a metric's extractor is a listed one (a metric without an extractor needs none)."""
        if metric.extractor is None or metric.extractor_sha256 is None:
            return True
        known = self.extractors.get(metric.extractor)
        return known is not None and metric.extractor_sha256.startswith(known)

    def card(self, metric: Metric) -> Card | None:
        """The card of the shipped extractor whose Fréchet distance a metric is, None where there is none."""
        card = self.cards.get(metric.extractor or "")
        known = card is not None and metric.extractor_sha256 == card.sha256
        return card if known and metric.name.partition("@")[0] == f"fd_{metric.extractor}" else None


@cache
def shipped_rules() -> Rules:
    """The rules of this installation: conf/dataset/*.yaml and the cards of the shipped extractors."""
    cards = {path.stem: Card.read(path.stem) for path in sorted(SHIPPED.glob("*.json"))}
    standards = {}
    for path in sorted((conf_dir() / "dataset").glob("*.yaml")):
        entry = read_yaml(path)
        if isinstance(entry, Mapping) and "n_samples" in entry and "name" in entry:
            standards[str(entry["name"])] = _standard(entry, cards)
    extractors = {"inception": INCEPTION_WEIGHTS, "clip": CLIP_WEIGHTS}
    extractors |= {name: card.sha256 for name, card in cards.items()}
    return Rules(standards, extractors, LAYERS | dict.fromkeys(cards, SHIPPED_LAYER), cards)


def _standard(entry: Mapping[str, Any], cards: Mapping[str, Card]) -> Standard:
    resolution, channels = entry.get("resolution"), entry.get("channels")
    card = cards.get(str(entry["name"]))
    # A data set whose resolution or path the user must give is a folder of the user's own images.
    fixed = isinstance(resolution, int) and isinstance(channels, int) and "path" not in entry
    return Standard(
        resolution=resolution if isinstance(resolution, int) else 0,
        channels=channels if isinstance(channels, int) else 0,
        reference=str(entry.get("reference", "train")),
        n_samples=int(entry["n_samples"]),
        shared=fixed,
        sha256=None if card is None else card.train_sha256,
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


def misreferred(result: Result, rules: Rules) -> Iterator[str]:
    """Fréchet distances of listed extractors whose reference statistics are not of the record's data set."""
    dataset = result.dataset
    for metric in result.metrics:
        layer = rules.layers.get(metric.extractor or "")
        is_fd = metric.name.partition("@")[0] in ("fid", f"fd_{metric.extractor}")
        if layer is None or not is_fd or not rules.listed(metric):
            continue
        expected = making(
            images=dataset.sha256,
            split=dataset.split,
            count=dataset.n_images,
            extractor=metric.extractor or "",
            weights=metric.extractor_sha256 or "",
            layer=layer,
            resize=metric.resize or "",
            quantiser=metric.quantiser or "",
        )
        if metric.reference_sha256 != digest_of(expected):
            yield f"{metric.name} was not computed against the {dataset.split} split of its data set"


def disagreements(results: Sequence[Result], names: Sequence[str] = ()) -> list[str]:
    """Why results are not training seeds of one recipe measured alike, one line each; else empty.

    names: what to call them, by their seeds unless given.
    """
    first, lines = results[0], []
    names = names or [f"seed {result.training.seed}" for result in results]
    seeds = [result.training.seed for result in results]
    for seed in sorted({seed for seed in seeds if seeds.count(seed) > 1}):
        lines.append(f"training seed {seed} occurs {seeds.count(seed)} times; every run needs its own")
    for other, name in zip(results[1:], names[1:], strict=True):
        pair = f"{names[0]} and {name}"
        told: list[str] = []
        if other.group_hash != first.group_hash:
            old, new = ({k: v for k, v in r.config.items() if k != "seed"} for r in (first, other))
            told = differences(old, new) or ["group_hash"]
            lines.extend(f"{pair} differ in {line}" for line in told)
        for what, was, now in _measured_alike(first, other):
            # sampler.steps is a setting too, and said once.
            if was != now and not any(line.startswith(f"{what}: ") for line in told):
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


def require_agreement(results: Sequence[Result], names: Sequence[str] = ()) -> None:
    """Raises UserError, with every difference, unless the results are training seeds of one recipe.

    names: see `disagreements`.
    """
    lines = disagreements(results, names)
    if lines:
        raise UserError(
            "These runs are not training seeds of one recipe measured alike:\n  "
            + "\n  ".join(lines)
            + "\nSubmit runs that differ in seed=... only."
        )
