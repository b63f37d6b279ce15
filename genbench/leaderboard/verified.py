"""verified.json: who drew a submission's images again, and what came of it.

`verify --by NAME` writes it beside submission.json, a *review* for each person: which images were compared
and how far they are apart, the scores found anew, on which device, by which commit of genbench. A row shows
the best word that a review has earned:

    reproduced   of every training seed the images were drawn again and all its samples scored again
    redrawn      less than that: of some seeds, or images alone

It is a person's word in git and no proof: `check` holds a review against the submission (the sums of what was
looked at, the bounds within which images and scores agree), and cannot see whether anything was run. The
checkpoints are mostly the submitter's: a review says that the images are theirs, not what they were trained
on. Torch is not imported here.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from genbench.configuration import SHOWN
from genbench.leaderboard.record import (
    Amount,
    Count,
    Day,
    Device,
    Git,
    Line,
    Metric,
    MetricName,
    Name,
    Positive,
    Result,
    Sha256,
    Strict,
    Value,
)

VERIFIED = "verified.json"
"""The file's name, beside submission.json."""

MOST_REVIEWS = 20
"""Of one submission."""

REPRODUCED, REDRAWN = "reproduced", "redrawn"
"""What a review can earn, see the module."""

MARKS = {REPRODUCED: "✓✓", REDRAWN: "✓"}
"""What a word looks like at a glance."""

NEAR_IMAGES = 0.95
"""The share of images that must lie within a grey level everywhere; a long trajectory may part from another
device's now and then."""

EQUAL_PIXELS = 0.99
"""The share of pixels that must be equal where fewer images are that near: of categorical samples."""

CLOSE = 0.01
"""By which share of its value a score may differ, beyond its own spread."""


class Score(Strict):
    """A metric of the record and its value anew; `allowed` is how far apart they may be, any for None."""

    name: MetricName
    recorded: Value
    found: Value
    allowed: Amount | None

    @property
    def agrees(self) -> bool:
        """Whether the two are as near as another device lets expect."""
        return self.allowed is None or abs(self.found - self.recorded) <= self.allowed


class Verification(Strict):
    """What drawing a training seed's images again found.

    images: how many were compared, of this SHA-256 (uint8 [K, H, W, C], as submitted); identical: how many
    are equal to the bit; near: how many lie within a grey level everywhere; equal: share of all pixels that
    are; largest: difference of a pixel, in levels.
    """

    seed: Count
    images: Positive
    sha256: Sha256
    identical: Count
    near: Count
    equal: Annotated[float, Field(ge=0, le=1)]
    largest: Annotated[int, Field(ge=0, le=255)]
    scores: Annotated[list[Score], Field(max_length=100)]

    @property
    def agrees(self) -> bool:
        """Whether images and scores are those of the checkpoint."""
        images = self.near >= NEAR_IMAGES * self.images or self.equal >= EQUAL_PIXELS
        return images and all(score.agrees for score in self.scores)


class Review(Strict):
    """One person's: `submission` is the SHA-256 of the submission.json that was looked at."""

    by: Name
    date: Day
    note: Line | None
    submission: Sha256
    seeds: Annotated[list[Verification], Field(min_length=1, max_length=100)]
    genbench_version: Name
    git: Git
    device: Device


class Verified(Strict):
    """The whole of verified.json, schema version 1."""

    schema_version: Literal[1]
    reviews: Annotated[list[Review], Field(min_length=1, max_length=MOST_REVIEWS)]


def allowed(metric: Metric) -> float | None:
    """How far a metric may lie from its record when samples are drawn and scored again; None: anywhere."""
    if metric.better == "neither":
        return None
    spread = metric.bootstrap_std if metric.std is None else metric.std
    return CLOSE * abs(metric.value) + (spread or 0.0)


def scored(result: Result) -> list[Metric]:
    """The metrics that `verify` finds anew: those of an extractor's features."""
    return [metric for metric in result.metrics if metric.extractor is not None]


def word(review: Review, seeds: int, metrics: int) -> str:
    """What a review of a submission of so many training seeds, each with so many such metrics, has earned."""
    whole = len(review.seeds) == seeds and all(len(found.scores) == metrics for found in review.seeds)
    return REPRODUCED if whole and metrics else REDRAWN


def told(review: Review) -> str:
    """A review in one line, after its word."""
    seeds = [str(found.seed) for found in review.seeds]
    images, levels = (sum(f.images for f in review.seeds), max(f.largest for f in review.seeds))
    parts = [
        f"by {review.by}, {review.date}",
        f"{images} images of training seed{'s' * (len(seeds) > 1)} {', '.join(seeds)}",
        f"at most {levels} grey level{'s' * (levels != 1)} apart",
        f"commit {(review.git.commit or 'unknown')[:SHOWN]}",
        review.device.name,
    ]
    return "; ".join(parts if review.note is None else [*parts, review.note])
