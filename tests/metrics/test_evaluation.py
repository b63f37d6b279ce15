"""Evaluation: one number whatever the batches, ranks and order; every image once; honest names."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from genbench.leaderboard.record import INCEPTION_METRICS
from genbench.metrics.evaluation import Evaluation, MetricValue, across_seeds
from genbench.metrics.extractors import BARE, Inception, Shipped
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


REFERENCE = Reference(Moments.of(Fixed()(images(300, 1))["pool"]), "train, 300 images", "f" * 64)
REAL = Real("train", {("features", "train"): REFERENCE})


def evaluation(n: int = N) -> Evaluation:
    return Evaluation(Fixed(), REAL, n)  # type: ignore[arg-type]


def values(found: list[MetricValue]) -> list[float]:
    numbers = (number for v in found for number in (v.value, v.split_std, v.bootstrap_std))
    return [number for number in numbers if number is not None]


def once() -> list[MetricValue]:
    whole = evaluation()
    whole.update(images(), torch.arange(N))
    return whole.result()


@settings(max_examples=20, deadline=None)
@given(size=st.integers(1, N), ranks=st.integers(1, 4), seed=st.integers(0, 9))
def test_batches_ranks_and_order_do_not_matter(size: int, ranks: int, seed: int) -> None:
    order = torch.randperm(N, generator=torch.Generator().manual_seed(seed))
    shares = [evaluation() for _ in range(ranks)]
    for number, part in enumerate(order.split(size)):
        shares[number % ranks].update(images()[part], part)
    for share in reversed(shares[1:]):
        shares[0].merge(share)
    assert values(shares[0].result()) == pytest.approx(values(once()), rel=1e-9)


def test_an_all_reduce_gives_every_rank_the_whole() -> None:
    """Two ranks in two threads, summing through a barrier as a process group would."""
    import threading

    shares = [evaluation(), evaluation()]
    shares[0].update(images()[:200], torch.arange(200))
    shares[1].update(images()[200:], torch.arange(200, N))
    meeting = threading.Barrier(2)
    table: list[list[Tensor]] = [[], []]

    def collective(rank: int):
        def sum_tensors(tensors: list[Tensor]) -> None:
            table[rank] = [tensor.clone() for tensor in tensors]
            meeting.wait()
            totals = [a + b for a, b in zip(*table, strict=True)]
            meeting.wait()
            for tensor, total in zip(tensors, totals, strict=True):
                tensor.copy_(total)

        return sum_tensors

    threads = [threading.Thread(target=share.reduce, args=(collective(r),)) for r, share in enumerate(shares)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for share in shares:
        assert values(share.result()) == pytest.approx(values(once()), rel=1e-9)


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
