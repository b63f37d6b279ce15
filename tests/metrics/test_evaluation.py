"""Evaluation: one number whatever the batches, ranks and order; every image once; honest names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import cache

import pytest
import torch
from features import reduce
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from genbench.errors import UserError
from genbench.leaderboard.record import INCEPTION_METRICS, Metric
from genbench.leaderboard.rules import is_distance
from genbench.metrics.choice import check_measures
from genbench.metrics.classes import ClassDistances, Modes
from genbench.metrics.evaluation import DEFAULT, Evaluation, MetricValue, across_seeds
from genbench.metrics.extractors import BARE, Inception, Shipped
from genbench.metrics.extrapolation import FrechetInfinity
from genbench.metrics.fid import FrechetDistance
from genbench.metrics.kernels import KID
from genbench.metrics.manifolds import DensityCoverage, PrecisionRecall
from genbench.metrics.measure import Measure
from genbench.metrics.memorisation import Memorisation
from genbench.metrics.moments import Moments
from genbench.metrics.reference import Real, Reference
from genbench.ops.quantize import QUANTISER

N = 211


class Fixed:
    """Eleven features and seven logits, exact and linear in the pixels: no convolution rounds them."""

    name = "digits"
    resize = "none"
    roles = {"features": "pool", "logits": "logits"}  # noqa: RUF012
    dimensions = {"pool": 11, "logits": 7}  # noqa: RUF012
    standard_count = N
    sha256 = "0" * 64
    calls = 0

    def metric(self, kind: str) -> str:
        return f"{kind}_{self.name}"

    def __call__(self, images: Tensor) -> dict[str, Tensor]:
        self.calls += 1
        flat = images.flatten(1).float() / 16
        return {"pool": flat[:, :11], "logits": flat[:, 11:18]}


def images(n: int = N, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (n, 1, 8, 8), dtype=torch.uint8, generator=generator)


class Spatial(Fixed):
    """The same with a layer more."""

    name = "other"
    roles = {**Fixed.roles, "spatial": "map"}  # noqa: RUF012
    dimensions = {**Fixed.dimensions, "map": 3}  # noqa: RUF012


CLASSES = torch.arange(N) % 7
EVERYTHING = [
    *DEFAULT,
    KID(5, 50),
    PrecisionRecall(),
    DensityCoverage(),
    FrechetInfinity(),
    ClassDistances(),
    Modes(),
    Memorisation(),
]


def layer(role: str, split: str, n: int, seed: int, digit: str) -> tuple[tuple[str, str], Reference]:
    rows = Fixed()(images(n, seed))[Fixed.roles[role]]
    labels = torch.arange(n) % 7
    return (role, split), Reference(
        Moments.of(rows), f"{split}, {n} images", digit * 64, lambda: rows, labels
    )


REAL = Real(
    "train",
    dict(
        layer(role, *split)
        for role in Fixed.roles
        for split in (("train", 300, 1, "f"), ("test", 200, 2, "e"))
    ),
)


def evaluation(n: int = N, measures: Sequence[Measure] = DEFAULT) -> Evaluation:
    return Evaluation(Fixed(), REAL, n, measures)  # type: ignore[arg-type]


def values(found: list[MetricValue]) -> list[float]:
    numbers = (number for v in found for number in (v.value, v.split_std, v.bootstrap_std))
    return [number for number in numbers if number is not None]


@cache
def _once(measures: tuple[Measure, ...]) -> list[MetricValue]:
    whole = evaluation(measures=measures)
    whole.update(images(), torch.arange(N), CLASSES)
    return whole.result()


def once(measures: Sequence[Measure] = DEFAULT) -> list[MetricValue]:
    return _once(tuple(measures))


@settings(max_examples=8, deadline=None)
@given(size=st.integers(1, N), ranks=st.integers(1, 4), seed=st.integers(0, 9))
def test_batches_ranks_and_order_do_not_matter(size: int, ranks: int, seed: int) -> None:
    order = torch.randperm(N, generator=torch.Generator().manual_seed(seed))
    shares = [evaluation(measures=EVERYTHING) for _ in range(ranks)]
    for number, part in enumerate(order.split(size)):
        shares[number % ranks].update(images()[part], part, CLASSES[part])
    for share in reversed(shares[1:]):
        shares[0].merge(share)
    assert values(shares[0].result()) == pytest.approx(values(once(EVERYTHING)), rel=1e-9)


def test_every_measure_gives_its_figures_under_honest_names() -> None:
    found = {value.name: value for value in once(EVERYTHING)}
    assert {name.removesuffix("_digits") for name in found} == {
        *("fd", "is", "kid", "precision", "recall", "density", "coverage", "fd_infinity"),
        *("class_fd", "class_fd_worst", *(f"class_fd_{k}" for k in range(7))),
        *("modes_tv", "modes_entropy", "modes_missing", "class_accuracy"),
        *("authenticity", "c_t", "train_distance_ratio"),
    }
    for value in found.values():
        Metric.model_validate({**asdict(value), "std": None})
    assert [name for name in found if is_distance(name)] == ["fd_digits"]
    diagnostics = {name for name, value in found.items() if value.better == "neither"}
    assert diagnostics == {"authenticity_digits", "c_t_digits", "train_distance_ratio_digits"}
    assert found["c_t_digits"].reference == "train, 300 images and test, 200 images"
    assert found["c_t_digits"].reference_sha256 not in ("f" * 64, "e" * 64)
    assert found["kid_digits"].reference_sha256 == found["fd_digits"].reference_sha256 == "f" * 64


def test_samples_without_classes_have_no_figures_by_class() -> None:
    whole = evaluation(measures=EVERYTHING)
    whole.update(images(), torch.arange(N))
    kinds = {value.name.removesuffix("_digits") for value in whole.result()}
    assert "modes_tv" in kinds
    assert not any(kind.startswith("class") for kind in kinds)


def test_features_are_kept_only_where_a_measure_needs_them_whole() -> None:
    assert evaluation()._rows == {}
    assert list(evaluation(measures=[KID(), PrecisionRecall()])._rows) == ["pool"]


def test_a_measure_without_its_layer_is_left_out() -> None:
    (line,) = check_measures({"sfid": FrechetDistance("spatial")}, [Fixed(), Spatial()], N)  # type: ignore[list-item]
    assert line == "sfid reads spatial, which digits has not: it is computed with the others alone."
    with pytest.raises(UserError, match="Leave measures=sfid out"):
        check_measures({"sfid": FrechetDistance("spatial")}, [Fixed()], N)  # type: ignore[list-item]
    with pytest.raises(UserError, match="cells of 20 samples need 60"):
        check_measures({"memorisation": Memorisation()}, [Fixed()], 59)  # type: ignore[list-item]
    whole = evaluation(measures=[*DEFAULT, FrechetDistance("spatial")])
    whole.update(images(), torch.arange(N))
    assert [value.name for value in whole.result()] == ["fd_digits", "is_digits"]


def test_an_all_reduce_gives_every_rank_the_whole() -> None:
    shares = [evaluation(measures=EVERYTHING) for _ in range(3)]
    for share, index in zip(shares, (torch.arange(150), torch.arange(150, N), torch.arange(0))):
        share.update(images()[index], index, CLASSES[index])
    reduce(shares)
    for share in shares:
        assert values(share.result()) == pytest.approx(values(once(EVERYTHING)), rel=1e-9)


def test_one_pass_of_the_extractor_serves_all_metrics() -> None:
    whole = evaluation()
    whole.update(images(), torch.arange(N))
    assert whole.extractor.calls == 1  # type: ignore[attr-defined]
    assert [v.name for v in whole.result()] == ["fd_digits", "is_digits"]


def test_a_padded_last_batch_counts_once() -> None:
    padded = evaluation()
    padded.update(torch.cat([images(), images(9, 5)]), torch.arange(N + 9))
    padded.update(images(3, 6), torch.arange(N, N + 3))
    assert values(padded.result()) == values(once())


def test_an_image_seen_twice_or_never_is_refused() -> None:
    twice = evaluation()
    twice.update(images(), torch.arange(N))
    twice.update(images()[7:8], torch.tensor([7]))
    with pytest.raises(ValueError, match=r"number 7 \(2 times\)"):
        twice.result()
    missing = evaluation()
    missing.update(images()[1:], torch.arange(1, N))
    with pytest.raises(ValueError, match=r"number 0 \(0 times\)"):
        missing.result()


def test_a_value_says_all_there_is_to_know() -> None:
    distance, score = once()
    assert replace(distance, value=0.0, bootstrap_std=0.0) == MetricValue(
        name="fd_digits",
        value=0.0,
        std=None,
        split_std=None,
        bootstrap_std=0.0,
        n_seeds=1,
        n_samples=N,
        extractor="digits",
        extractor_sha256="0" * 64,
        reference="train, 300 images",
        reference_sha256="f" * 64,
        quantiser=QUANTISER,
        resize="none",
        better="lower",
    )
    assert (score.name, score.better) == ("is_digits", "higher")
    assert score.split_std is not None
    assert score.split_std > 0


def test_any_other_count_is_in_the_name() -> None:
    fewer = evaluation(50)
    fewer.update(images(50), torch.arange(50))
    assert [v.name for v in fewer.result()] == ["fd_digits@50", "is_digits@50"]


def test_inceptions_metrics_have_their_own_names_and_count() -> None:
    inception, digits = Inception("/nowhere"), Shipped("digits")
    assert [inception.metric(kind) for kind in ("fd", "is", "kid")] == ["fid", "is", "kid"]
    assert [inception.metric(kind) for kind in ("sfd", "authenticity")] == ["sfid", "authenticity_inception"]
    assert {inception.metric(kind) for kind in BARE} == INCEPTION_METRICS
    assert inception.standard_count == 50_000
    assert [digits.metric(kind) for kind in ("fd", "is")] == ["fd_digits", "is_digits"]
    assert digits.standard_count == digits.card.n_samples == 2000


def test_seeds_are_averaged_and_their_spread_is_named() -> None:
    results = []
    for seed in range(3):
        whole = evaluation()
        whole.update(images(seed=seed), torch.arange(N))
        results.append(whole.result())
    distance, score = across_seeds(results)
    numbers = torch.tensor([found[0].value for found in results], dtype=torch.float64)
    assert distance.value == pytest.approx(float(numbers.mean()), rel=1e-14)
    assert distance.std == pytest.approx(float(numbers.std()), rel=1e-12)
    assert (distance.n_seeds, distance.n_samples, distance.split_std) == (3, N, None)
    assert distance.bootstrap_std == pytest.approx(sum(found[0].bootstrap_std or 0 for found in results) / 3)
    assert score.split_std == pytest.approx(sum(found[1].split_std or 0 for found in results) / 3)
    assert across_seeds(results[:1]) == results[0]
    with pytest.raises(ValueError, match="same way"):
        across_seeds([results[0], [replace(v, reference_sha256="e" * 64) for v in results[1]]])
