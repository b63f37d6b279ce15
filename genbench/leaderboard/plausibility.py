"""Could these numbers be true? What contradicts itself, what no machine does, what no generator reaches.

Three questions are asked of a record, each with a bound that an honest one cannot cross:

Better than real. FD is biased upwards by c / n for n images drawn from the very images they are compared
with, where c follows from a card's subsets of n_test images drawn without replacement from n_train:
subset_mean = c (1 / n_test - 1 / n_train). A set of n samples below

    c / n (1 - 3 subset_std / subset_mean)

is nearer to the training images than these are to themselves, redrawn; the relative spread does not depend
on n. (Digits: c = 141, so 0.071 at 2,000, where training images redrawn scored 0.065 +- 0.015.)

Memorised. Of 2,000 digits copied from the training split C_T was -18 and authenticity 0; copied with noise of
one grey level in 16, -15 and 0.08; a DDPM's had 5 and 0.87, unseen real ones 0 and 0.81.

Too fast. An evaluation of a network does at least one operation with each of its parameters for each image
(half of them may lie idle: critics, encoders; the other half do two), a training image at least three times
as many. No device that is sold does more than `FASTEST` a second. Convolutions use a parameter hundreds of
times, so real runs stay far below: two cores reached 1e10 where the bound says 1e15.
"""

from __future__ import annotations

from collections.abc import Iterator

from genbench.leaderboard.record import Result
from genbench.leaderboard.rules import Rules
from genbench.metrics.card import Card

FASTEST = {"cpu": 1e15}
"""Operations a second that no device of a type exceeds (two sockets of 128 cores with AMX reach 1e15)."""

FASTEST_ACCELERATOR = 1e16
"""The same of any other type: 8-bit operations of the fastest, sparse ones counted as if they were dense."""

MEMORISED = {"c_t": -3.0, "authenticity": 0.1, "train_distance_ratio": 0.5}
"""Diagnostics below these say copies: C_T by its authors' rule, the others far from new data's 0.5 and 1."""


def contradictions(result: Result) -> Iterator[str]:
    """What in a record contradicts itself or physics, one line each."""
    training, sampling, device = result.training, result.sampling, result.device
    step = training.steps * training.batch_size
    if training.images_seen % step if step else training.images_seen:
        yield (
            f"{training.images_seen:,} training images are no multiple of "
            f"{training.steps:,} steps of {training.batch_size:,}"
        )
    expected = training.wall_seconds * training.world_size
    if abs(training.device_seconds - expected) > 1e-9 * expected:
        yield (
            f"device_seconds is {training.device_seconds:g}, {training.world_size} device(s) for "
            f"{training.wall_seconds:g} s are {expected:g}"
        )
    rate = FASTEST.get(device.type, FASTEST_ACCELERATOR) * device.count
    parameters = result.model.parameters
    for what, seconds, operations in (
        ("sampling an image", sampling.seconds_per_image, parameters * sampling.nfe_mean),
        ("training", training.device_seconds, 3 * parameters * training.images_seen),
    ):
        if seconds * rate < operations:
            least = operations / rate
            yield f"{what} took {seconds:g} s; no {device.type} does that in less than {least:.2g} s"


def too_good(result: Result, rules: Rules) -> Iterator[str]:
    """Figures that training images, or copies of them, have and new samples do not, one line each."""
    for metric in result.metrics:
        card = rules.card(metric)
        if card is not None and result.dataset.sha256 == card.train_sha256:
            bound = floor(card, metric.n_samples)
            if metric.value < bound:
                yield (
                    f"{metric.name} {metric.value:.4g} is better than real: {metric.n_samples:,} training "
                    f"images redrawn do not score below {bound:.3g}"
                )
        diagnostic = metric.name.partition("@")[0].removesuffix(f"_{metric.extractor}")
        if metric.value < MEMORISED.get(diagnostic, metric.value):
            least = MEMORISED[diagnostic]
            yield f"{metric.name} {metric.value:.4g} is below {least:g}: samples repeat training images"


def floor(card: Card, n: int) -> float:
    """The FD that n images drawn from the training split do not go below, see the module."""
    bias = card.subset_mean / (1 / card.n_test - 1 / card.n_train)
    return bias / n * max(0.0, 1 - 3 * card.subset_std / card.subset_mean)
