"""What cannot be true: each bound from both sides, and the closed lists of extractors, images, statistics."""

from __future__ import annotations

import copy
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fakes import COMMITTED, evidence, fill

from genbench.data.sources import Digits
from genbench.errors import UserError
from genbench.leaderboard.checking import check
from genbench.leaderboard.divisions import closed_objections
from genbench.leaderboard.evidence import Evidence, departures, from_bytes, kept_images
from genbench.leaderboard.gathering import gather
from genbench.leaderboard.plausibility import contradictions, floor, too_good
from genbench.leaderboard.record import Result
from genbench.leaderboard.rules import CLIP_WEIGHTS, LAYERS, misreferred, shipped_rules
from genbench.leaderboard.submitting import sums
from genbench.metrics.card import SHIPPED, Card
from genbench.metrics.extractors import Inception, Shipped
from genbench.metrics.fid import frechet_distance, gaussian
from genbench.metrics.gaussians import Gaussian, distance
from genbench.metrics.identity import digest_of, making
from genbench.metrics.moments import Moments
from genbench.metrics.packed import MOST_FEATURES, pack, read_reference, reference_path, unpack
from genbench.metrics.reference import refer
from genbench.metrics.transformers import CLIP, DINOv2

(DEMO,) = COMMITTED.glob("ddpm-ddim-*-genbench")
RULES = shipped_rules()


def result(changes: dict[str, Any] | None = None, seed: int = 0) -> Result:
    """A committed result with dotted changes: "metrics.0.value"."""
    value = json.loads((DEMO / "results" / f"seed{seed}.json").read_text())
    for key, new in (changes or {}).items():
        *path, last = (int(part) if part.isdecimal() else part for part in key.split("."))
        tree = value
        for part in path:
            tree = tree[part]
        tree[last] = copy.deepcopy(new)
    return Result.model_validate(value)


def objections(changes: dict[str, Any]) -> list[str]:
    return closed_objections([result(changes, seed) for seed in range(3)], None, RULES)


def test_the_committed_submission_has_nothing_against_it() -> None:
    assert objections({}) == []
    for seed in range(3):
        assert list(contradictions(result(seed=seed))) == []
        assert list(misreferred(result(seed=seed), RULES)) == []


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"training.images_seen": 128_001}, "128,001 training images are no multiple of 1,000 steps of 128"),
        ({"training.steps": 0}, "no multiple of 0 steps"),
        ({"training.device_seconds": 200.0}, "device_seconds is 200"),
        ({"training.world_size": 2}, "2 device(s) for"),
        ({"sampling.seconds_per_image": 0.0}, "sampling an image took 0 s"),
        ({"sampling.seconds_per_image": 4.9e-8}, "no cpu does that in less than 5e-08 s"),
        ({"training.device_seconds": 1e-4, "training.wall_seconds": 1e-4}, "training took 0.0001 s"),
    ],
)
def test_contradictions_are_found(changes, said: str) -> None:
    (line,) = contradictions(result(changes))
    assert said in line


def test_what_is_just_possible_is_no_contradiction() -> None:
    # A million parameters, 50 evaluations: 5e7 operations, at 1e15 a second on a processor, 1e16 on a GPU.
    assert list(contradictions(result({"sampling.seconds_per_image": 5.1e-8}))) == []
    gpu = {"sampling.seconds_per_image": 5.1e-9, "device.type": "cuda"}
    assert list(contradictions(result(gpu))) == []
    assert len(list(contradictions(result(gpu | {"device.type": "cpu"})))) == 1
    assert list(contradictions(result(gpu | {"device.type": "cpu", "device.count": 10}))) == []
    untrained = {"training.steps": 0, "training.images_seen": 0}
    assert list(contradictions(result(untrained))) == []


def test_no_draw_of_training_images_is_better_than_real_and_a_chosen_set_is() -> None:
    card = Card.read("digits")
    train, extractor = Digits().load(Path("unused"), "train"), Shipped("digits")
    features = torch.cat([extractor(part)["pool"] for part in train.images.split(500)])
    reference = Moments.of(features)
    generator = torch.Generator().manual_seed(0)
    for n in (200, 2000):
        drawn = [
            frechet_distance(
                Moments.of(features[torch.randint(len(features), (n,), generator=generator)]), reference
            )
            for _ in range(8)
        ]
        assert min(drawn) > floor(card, n)
        assert sum(drawn) / 8 < 6 * floor(card, n), "the bound is of the size of what it bounds"
    whole = torch.cat([features, features[:563]])  # every image once, some twice: nobody draws that
    assert frechet_distance(Moments.of(whole), reference) < floor(card, 2000)


@pytest.mark.parametrize("name", sorted(RULES.cards))
def test_unseen_real_images_are_not_better_than_real(name: str) -> None:
    card = RULES.cards[name]
    assert floor(card, card.n_test) < card.floor


def test_better_than_real_is_judged_at_equal_counts() -> None:
    bound = floor(RULES.cards["digits"], 2000)
    assert list(too_good(result({"metrics.0.value": bound * 1.01}), RULES)) == []
    (line,) = too_good(result({"metrics.0.value": bound * 0.99}), RULES)
    assert "is better than real: 2,000 training images redrawn do not score below 0.0223" in line
    few = {"metrics.0.value": bound * 1.01, "metrics.0.n_samples": 200, "metrics.0.name": "fd_digits@200"}
    assert "better than real" in next(too_good(result(few), RULES))
    assert any("better than real" in line for line in objections({"metrics.0.value": 0.01}))
    # Of another data set, or other weights, the card says nothing.
    assert list(too_good(result({"metrics.0.value": 0.0, "dataset.sha256": "0" * 64}), RULES)) == []


@pytest.mark.parametrize(
    ("kind", "least"), [("c_t", -3.0), ("authenticity", 0.1), ("train_distance_ratio", 0.5)]
)
def test_copies_of_training_images_are_not_for_the_closed_division(kind: str, least: float) -> None:
    base = json.loads(result().model_dump_json())["metrics"][0] | {"better": "neither"}
    for value, count in ((least - 0.01, 1), (least, 0)):
        metric = base | {"name": f"{kind}_digits", "value": value}
        lines = objections({"metrics.1": metric})
        assert (
            sum(f"{kind}_digits" in line and "repeat training images" in line for line in lines) == 3 * count
        )


def test_other_images_under_a_known_name_are_not_for_the_closed_division() -> None:
    (line, *_) = objections({"dataset.sha256": "f" * 64})
    assert "other images than the digits that everybody has" in line


def test_the_reference_must_be_the_listed_one_and_of_the_records_data_set() -> None:
    assert "the reference statistics of fd_digits are not listed ones" in objections(
        {"metrics.0.reference_sha256": "0" * 64}
    )
    assert len(list(misreferred(result({"metrics.0.reference_sha256": "0" * 64}), RULES))) == 1
    # A record may state any data set, but not the statistics of another one.
    for key, value in (("sha256", "f" * 64), ("split", "test"), ("n_images", 1436)):
        (line,) = misreferred(result({f"dataset.{key}": value}), RULES)
        assert line.startswith("fd_digits was not computed against")


def test_published_networks_are_listed_by_what_their_publishers_say() -> None:
    assert CLIP().weights.digits == CLIP_WEIGHTS == RULES.extractors["clip"]
    assert Inception().weights.digits == RULES.extractors["inception"]
    assert DINOv2().weights.digits is None
    assert "dinov2" not in RULES.extractors
    for extractor in (Inception, DINOv2):
        assert LAYERS[extractor.name] == extractor.roles["features"]
    assert Shipped.roles["features"] == "pool" == RULES.layers["digits"]


@pytest.mark.parametrize("name", sorted(RULES.cards))
def test_shipped_statistics_are_of_the_shipped_weights_and_the_right_images(name: str) -> None:
    card = RULES.cards[name]
    moments, sha256 = read_reference(reference_path(name))
    made_of = making(
        images=card.train_sha256,
        split="train",
        count=card.n_train,
        extractor=name,
        weights=card.sha256,
        layer="pool",
        resize="none",
        quantiser=card.quantiser,
    )
    assert sha256 == digest_of(made_of)
    assert (moments.n, len(moments.mean)) == (card.n_train, card.features)
    assert card.features <= MOST_FEATURES
    assert reference_path(name).stat().st_size < 300_000
    assert SHIPPED in reference_path(name).parents


def numbers(of: Gaussian) -> Gaussian:
    """A Gaussian of torch's as one of NumPy's."""
    return Gaussian(of.n, of.mean.numpy(), of.covariance.numpy())


def test_shipped_statistics_of_digits_are_computed_again(tmp_path) -> None:
    found = refer(Digits().load(tmp_path, "train"), Shipped("digits"), ["features"])["features"]
    kept, sha256 = read_reference(reference_path("digits"))
    assert found.sha256 == sha256
    again = numbers(gaussian(found.moments))
    np.testing.assert_allclose(again.mean, kept.mean, rtol=1e-5, atol=1e-6)
    assert distance(again, kept) < 1e-8


def test_packed_moments_come_back(tmp_path) -> None:
    for n in (5, 40):  # fewer images than features, and more
        found = Moments.of(
            torch.randn(n, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(n))
        )
        again = unpack(n, *pack(gaussian(found)))
        np.testing.assert_array_equal(again.covariance, found.covariance.numpy())
        np.testing.assert_array_equal(again.mean, found.mean.numpy())
    with pytest.raises(ValueError, match="12 features have 78 covariances"):
        unpack(5, again.mean, np.zeros(77))


def held(of: Result, seed: int = 0) -> Evidence:
    path = DEMO / "evidence" / f"seed{seed}.safetensors"
    return from_bytes(path.read_bytes(), path, of, RULES)


def test_a_distance_follows_from_its_moments() -> None:
    honest = result()
    assert list(departures(held(honest), honest, RULES)) == []
    value = honest.metrics[0].value
    for wrong in (value * 1.001, value - 1e-3, 0.0):
        forged = result({"metrics.0.value": wrong})
        (line,) = departures(held(forged), forged, RULES)
        assert line == f"fd_digits is {wrong:.6g}, its moments give {value:.6g}"
    assert len(list(departures(held(honest, seed=1), honest, RULES))) == 1


def test_of_several_evaluation_seeds_the_first_lies_within_what_their_spread_allows() -> None:
    """v = (a, b, c) has mean m and deviation s; |a - m| <= s 2 / sqrt(3), with equality where b = c."""
    first = result().metrics[0].value
    others = first + 0.3
    mean = (first + 2 * others) / 3
    std = (2 * 0.1**2 + 0.2**2) ** 0.5 / 2**0.5
    several = {
        "sampling.seeds": [0, 1, 2],
        "metrics.1.n_seeds": 3,
        "metrics.1.std": 0.1,
        "metrics.0.n_seeds": 3,
    }
    for spread, lines in ((std * 1.001, 0), (std * 0.99, 1)):
        forged = result(several | {"metrics.0.value": mean, "metrics.0.std": spread})
        assert len(list(departures(held(forged), forged, RULES))) == lines


def test_fakes_have_the_distance_they_claim() -> None:
    fake = result({"metrics.0.value": 7.25})
    path = Path("seed0.safetensors")
    found = from_bytes(evidence(fake), path, fake, RULES)
    assert list(departures(found, fake, RULES)) == []


def test_how_many_images_are_kept() -> None:
    assert kept_images(result()) == 64
    assert kept_images(result({"dataset.resolution": 32, "dataset.channels": 3})) == 21
    assert kept_images(result({"dataset.resolution": 1024, "dataset.channels": 3})) == 1
    assert kept_images(result({"sampling.n_samples": 7, "metrics": []})) == 7


def test_samples_that_were_not_scored_are_not_submitted(tmp_path) -> None:
    (tmp_path / "samples").mkdir()
    with pytest.raises(UserError, match=r"samples\.npz is missing[\s\S]*task=evaluate"):
        gather(tmp_path, result(), RULES)
    recorded = next(metric.value for metric in result().metrics if metric.name == "fd_digits")
    derived = f"fd_digits is {recorded:.6g}, its moments give"
    for count, said in ((1999, "holds 1,999 images"), (2000, derived)):
        np.savez(tmp_path / "samples" / "samples.npz", images=np.zeros((count, 8, 8, 1), np.uint8))
        with pytest.raises(UserError, match=said):
            gather(tmp_path, result(), RULES)


def test_the_closed_division_wants_moments_and_the_open_one_does_without(tmp_path) -> None:
    root = fill(tmp_path / "board", 1, images=False)
    (directory,) = root.glob("submissions/*/*")
    shutil.rmtree(directory / "evidence")
    for division, count in (("closed", 3), ("open", 0)):
        path = directory / "submission.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"division": division}))
        files = {p.relative_to(directory).as_posix(): p for p in directory.rglob("*") if p.is_file()}
        files.pop("SHA256SUMS")
        (directory / "SHA256SUMS").write_text(sums({name: p.read_bytes() for name, p in files.items()}))
        problems = [problem.message for problem in check(directory)]
        assert sum("is missing: the closed division wants moments" in line for line in problems) == count
        assert len(problems) == count
