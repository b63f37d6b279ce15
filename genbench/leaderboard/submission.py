"""A submission: the results of one recipe's training seeds, and the row that follows from them.

    submissions/<dataset>/<slug>/submission.json     who, which division, which results, the figures
                                 results/seed<k>.json
                                 evidence/seed<k>.safetensors   images and moments, see `evidence`
                                 config.yaml         what determines the result, without the seed
                                 samples.png         a grid from the first seed
                                 verified.json       once somebody drew its images again, see `verified`
                                 SHA256SUMS          as `sha256sum --check` reads it

Figures are derived from the results, never typed: over training seeds k = 1..K with values v_k, the mean is
sum v_k / K and the spread the sample standard deviation sqrt(sum (v_k - mean)^2 / (K - 1)), None for K = 1.
The spread over evaluation seeds is another quantity: the root mean square of the seeds' own spreads; so is
the bootstrap's standard error. The standard library's `mean` and `stdev` compute in fractions and round once,
so every machine derives the same bits.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints

from genbench.errors import UserError
from genbench.leaderboard.record import (
    Amount,
    Count,
    Day,
    Line,
    MetricName,
    Name,
    Positive,
    Result,
    Sha256,
    Strict,
    Value,
    parse,
)
from genbench.leaderboard.rules import BudgetClass, budget_class
from genbench.leaderboard.untrusted import parse_json, read_json
from genbench.leaderboard.verified import VERIFIED, Verified

SUBMISSION, CONFIG, SAMPLES, SUMS, RESULTS, EVIDENCE = (
    "submission.json",
    "config.yaml",
    "samples.png",
    "SHA256SUMS",
    "results",
    "evidence",
)
"""The entries of a submission's directory; `RESULTS` and `EVIDENCE` are directories, the others files."""

RESULT_NAME = re.compile(r"seed(0|[1-9][0-9]{0,18})\.json", re.ASCII)
"""The name of a result inside `results/`."""

EVIDENCE_NAME = re.compile(r"seed(0|[1-9][0-9]{0,18})\.safetensors", re.ASCII)
"""The name of a run's evidence inside `evidence/`."""

Division = Literal["closed", "open"]


def evidence_file(seed: int) -> str:
    """The path, inside a submission, of the evidence of a training seed."""
    return f"{EVIDENCE}/seed{seed}.safetensors"


class ResultFile(Strict):
    """One result of a submission: its training seed, its path inside the submission and its SHA-256."""

    seed: Count
    file: Annotated[str, StringConstraints(pattern=r"^results/seed[0-9]{1,19}\.json$")]
    sha256: Sha256


class MetricFigures(Strict):
    """A metric over training seeds: mean, sample standard deviation, and what one model's scores vary by:
    over evaluation seeds, or as the images of a single one let expect (bootstrap).
    """

    name: MetricName
    mean: Value
    std: Amount | None
    evaluation_std: Amount | None
    bootstrap_std: Amount | None = None
    better: Literal["lower", "higher", "neither"]


class Figures(Strict):
    """A row, derived from results. Times and NFE are means over training seeds, images seen the largest."""

    dataset: Name
    resolution: Positive
    split: Name
    dataset_sha256: Sha256
    n_samples: Positive
    conditional: bool
    model: Name
    family: Name
    parameters: Count
    sampler: Name
    sampler_steps: Positive | None
    weights: Literal["ema", "raw"]
    training_seeds: list[Count]
    evaluation_seeds: list[Count]
    images_seen: Count
    budget_class: BudgetClass
    nfe: Amount
    seconds_per_image: Amount
    device_seconds: Amount
    devices: list[Name]
    metrics: list[MetricFigures]


class Submission(Strict):
    """The whole of submission.json, schema version 1. `outside_data` names data beyond the data set's own."""

    schema_version: Literal[1]
    submitter: Name
    division: Division
    note: Line | None
    outside_data: Line | None
    date: Day
    group_hash: Sha256
    results: Annotated[list[ResultFile], Field(min_length=1, max_length=100)]
    figures: Figures


@dataclass(frozen=True)
class Entry:
    """A submission as read from disk; `results` in the order of submission.json, figures not yet trusted."""

    directory: Path
    submission: Submission
    results: tuple[Result, ...]
    verified: Verified | None = None


def figures(results: Sequence[Result]) -> Figures:
    """The row of results that agree (see `rules.disagreements`); seeds are taken in increasing order."""
    results = sorted(results, key=lambda result: result.training.seed)
    first = results[0]
    images_seen = max(result.training.images_seen for result in results)
    return Figures(
        dataset=first.dataset.name,
        resolution=first.dataset.resolution,
        split=first.dataset.split,
        dataset_sha256=first.dataset.sha256,
        n_samples=first.sampling.n_samples,
        conditional=first.sampling.conditional,
        model=first.model.name,
        family=first.model.family,
        parameters=first.model.parameters,
        sampler=first.sampling.sampler,
        sampler_steps=first.sampling.steps,
        weights=first.weights,
        training_seeds=[result.training.seed for result in results],
        evaluation_seeds=first.sampling.seeds,
        images_seen=images_seen,
        budget_class=budget_class(images_seen),
        nfe=mean([result.sampling.nfe_mean for result in results]),
        seconds_per_image=mean([result.sampling.seconds_per_image for result in results]),
        device_seconds=mean([result.training.device_seconds for result in results]),
        devices=sorted({result.device.name for result in results}),
        metrics=[_over_seeds(results, metric.name) for metric in sorted(first.metrics, key=lambda m: m.name)],
    )


def _over_seeds(results: Sequence[Result], name: str) -> MetricFigures:
    metrics = [metric for result in results for metric in result.metrics if metric.name == name]
    values = [metric.value for metric in metrics]
    return MetricFigures(
        name=name,
        mean=mean(values),
        std=stdev(values) if len(values) > 1 else None,
        evaluation_std=_together([metric.std for metric in metrics]),
        bootstrap_std=_together([metric.bootstrap_std for metric in metrics]),
        better=metrics[0].better,
    )


def _together(spreads: Sequence[float | None]) -> float | None:
    """The root mean square of those that are known, None where none is."""
    known = [spread for spread in spreads if spread is not None]
    return math.sqrt(mean([spread**2 for spread in known])) if known else None


def slug(row: Figures, group_hash: str, submitter: str) -> str:
    """The name of a submission's directory: model, sampler, recipe and submitter, safe in any path."""
    return "-".join((plain(row.model), plain(row.sampler), group_hash[:8], plain(submitter)))


def plain(name: str) -> str:
    """`name` with nothing but a-z, 0-9, "_" and single "-": a safe name for a file or directory."""
    return re.sub(r"[^a-z0-9_]+", "-", name.lower()).strip("-")[:40].strip("-") or "unnamed"


def read_entry(directory: Path, files: Mapping[str, bytes] | None = None) -> Entry:
    """submission.json, the results it lists and its reviews.

    files: contents by relative path; read from disk where they are not given.

    Raises UserError for what is not there or cannot be read.
    """
    path = directory / SUBMISSION
    submission = parse(Submission, _json(directory, SUBMISSION, files), path)
    if files is not None:
        for item in submission.results:
            if item.file not in files:
                raise UserError(f"{path}: lists {item.file}, which is not there")
    results = (
        parse(Result, _json(directory, item.file, files), directory / item.file)
        for item in submission.results
    )
    reviewed = os.path.lexists(directory / VERIFIED) if files is None else VERIFIED in files
    verified = parse(Verified, _json(directory, VERIFIED, files), directory / VERIFIED) if reviewed else None
    return Entry(directory, submission, tuple(results), verified)


def _json(directory: Path, name: str, files: Mapping[str, bytes] | None) -> Any:
    path = directory / name
    return read_json(path) if files is None else parse_json(files[name], path)


def submission_directories(root: Path) -> list[Path]:
    """The submissions' directories under `root`/submissions/<dataset>/, sorted."""
    return sorted(path for path in (root / "submissions").glob("*/*") if not path.name.startswith("."))
