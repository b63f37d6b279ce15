"""result.json: what a finished run says about itself, strict enough for a stranger's number to be trusted.

A `Result` is one training seed under one configuration, scored by one evaluation. Every object refuses keys
it does not know, values of another type, numbers that are not finite and strings without bound; the whole
is exported as JSON Schema by `schema()`. Two spreads have two names: a metric's `std` here is over
*evaluation* seeds (other samples of the same weights); that over *training* seeds belongs to a submission.

A metric's name cannot mislead. With Inception's features it is bare (`fid`, `sfid`, `fid_infinity`, `is`,
`kid`, `precision`, `recall`, `density`, `coverage`), as CLIP's `cmmd`; any other name carries its extractor:
`fd_digits`, `is_digits`, `kid_dinov2`. A number of samples that is not the standard stands behind: for
published networks that is 50,000 (`fid@10000`), else the data set's own (`fd_digits@500`).
"""

from __future__ import annotations

import json
import math
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    StringConstraints,
    ValidationError,
    field_validator,
    model_validator,
)

from genbench.errors import UserError, printable
from genbench.leaderboard.untrusted import RECORD_LIMIT, read_json, write_atomically

PUBLISHED_SAMPLES = 50_000
"""The number of samples at which a published network's metric needs none in its name."""

PUBLISHED = frozenset({"inception", "dinov2", "clip"})
"""Extractors of published networks, whose metrics mean the same on every data set."""

INCEPTION_METRICS = frozenset(
    {"fid", "sfid", "fid_infinity", "is", "kid", "precision", "recall", "density", "coverage"}
)
"""Names that, bare, promise Inception's features."""

DIAGNOSTICS = frozenset({"authenticity", "c_t", "train_distance_ratio"})
"""Signs of memorisation: shown, never ranked by, hence neither better lower nor higher."""

BARE_METRICS = dict.fromkeys(INCEPTION_METRICS, "inception") | {"cmmd": "clip"}
"""Names that carry no extractor, and the one they promise."""

# No control characters, line or paragraph separators, marks that reorder text or cannot be seen: one line
# stays one line, and what is read is what is there.
_UNSEEN = r"\u0000-\u001f\u007f-\u009f\u00ad\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff"
_ONE_LINE = f"^[^{_UNSEEN}]*$"
# The pages escape everything; a name moreover is no markup, and no formula where a table is pasted.
_NAME = f"^[^{_UNSEEN}<>=+@-][^{_UNSEEN}<>]*$"

Name = Annotated[str, StringConstraints(min_length=1, max_length=100, pattern=_NAME)]
Line = Annotated[str, StringConstraints(max_length=1000, pattern=_ONE_LINE)]
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Commit = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{40}([0-9a-f]{24})?$")]
MetricName = Annotated[str, StringConstraints(max_length=100, pattern=r"^[a-z][a-z0-9_]*(@[1-9][0-9]*)?$")]
Moment = Annotated[
    str, StringConstraints(pattern=r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z$")
]
Day = Annotated[
    str,
    StringConstraints(pattern=r"^[0-9]{4}-[0-9]{2}-[0-9]{2}$"),
    AfterValidator(lambda text: date.fromisoformat(text).isoformat()),
]
Count = Annotated[int, Field(ge=0, lt=2**63)]
Positive = Annotated[int, Field(ge=1, lt=2**63)]
# No quantity here comes near 1e15; the bound keeps sums of squares of hostile values finite.
Amount = Annotated[float, Field(ge=0, le=1e15)]
Value = Annotated[float, Field(ge=-1e15, le=1e15)]


Record = TypeVar("Record", bound=BaseModel)


class Strict(BaseModel):
    """An immutable record: unknown keys, other types and non-finite numbers are refused."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class Git(Strict):
    """The commit of the code that ran (None outside a checkout) and whether the tree differed from it."""

    commit: Commit | None
    dirty: bool | None


class Dataset(Strict):
    """The images trained on and scored against.

    `split` is the reference split, `sha256` and `n_images` those of that split in canonical order,
    `provenance` where the images came from (layout, crop, address).
    """

    name: Name
    split: Name
    resolution: Positive
    channels: Positive
    sha256: Sha256
    n_images: Positive
    provenance: Annotated[dict[Name, Line], Field(max_length=50)]


class Model(Strict):
    """What was trained; `parameters` counts trainable numbers."""

    name: Name
    family: Name
    parameters: Count


class Training(Strict):
    """How far training went. `images_seen` counts training images with repetition, `device_seconds` is wall
    time times the number of devices, `stopped` says whether all steps were taken or a time budget ended it.
    """

    steps: Count
    images_seen: Count
    batch_size: Positive
    wall_seconds: Amount
    device_seconds: Amount
    seed: Count
    stopped: Literal["steps", "budget"]
    world_size: Positive
    precision: Name


class Device(Strict):
    """What the run ran on: the maker's name, torch's type ("cpu", "cuda"), how many."""

    name: Name
    type: Name
    count: Positive


class Sampling(Strict):
    """How images were drawn. NFE are counted network evaluations an image; `seeds` are evaluation seeds.

    `steps` is None where a sampler chooses its own; `seconds_per_image` is wall time at the run's sampling
    batch size; `fitted_sha256` is that of what the sampler learnt after training, None where nothing.
    """

    sampler: Name
    steps: Positive | None
    nfe_mean: Amount
    nfe_max: Count
    seconds_per_image: Amount
    n_samples: Positive
    conditional: bool
    seeds: Annotated[list[Count], Field(min_length=1, max_length=1000)]
    fitted_sha256: Sha256 | None = None

    @model_validator(mode="after")
    def _coherent(self) -> Self:
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"evaluation seeds must be distinct, found {self.seeds}")
        if self.nfe_mean > self.nfe_max:
            raise ValueError(f"nfe_mean {self.nfe_mean} exceeds nfe_max {self.nfe_max}")
        return self


class Metric(Strict):
    """One number, and all that is needed to know what it means.

    `value` is the mean over `n_seeds` evaluation seeds and `std` their sample standard deviation (None
    exactly where there is one seed); `split_std` is the deviation over the splits of a
    metric that has them (the Inception Score has ten); `bootstrap_std` the standard error over images that
    those of a single seed let expect, for metrics that estimate it. `better` is "neither" for diagnostics.
    `extractor`, `reference`, `quantiser` and `resize` are None where the metric uses none (a likelihood has
    no extractor).
    """

    name: MetricName
    value: Value
    std: Amount | None
    split_std: Amount | None = None
    bootstrap_std: Amount | None = None
    n_seeds: Positive
    n_samples: Positive
    extractor: Name | None
    extractor_sha256: Sha256 | None
    reference: Line | None
    reference_sha256: Sha256 | None
    quantiser: Name | None
    resize: Name | None
    better: Literal["lower", "higher", "neither"]

    @model_validator(mode="after")
    def _name_does_not_mislead(self) -> Self:
        base, _, count = self.name.partition("@")
        if count and int(count) != self.n_samples:
            raise ValueError(f"{self.name} was computed from {self.n_samples} samples")
        if (self.extractor is None) != (self.extractor_sha256 is None):
            raise ValueError(f"{self.name} needs extractor and extractor_sha256 both, or neither")
        if base in BARE_METRICS:
            if self.extractor != BARE_METRICS[base]:
                owner = BARE_METRICS[base].capitalize()
                raise ValueError(f"{base} is {owner}'s; with {self.extractor} the name must carry it")
        elif self.extractor is not None and not base.endswith(f"_{self.extractor}"):
            raise ValueError(f"{self.name} uses the extractor {self.extractor}, which its name must carry")
        if self.extractor in PUBLISHED and (self.n_samples == PUBLISHED_SAMPLES) == bool(count):
            expected = base if count else f"{base}@{self.n_samples}"
            raise ValueError(f"{self.name} from {self.n_samples} samples must be named {expected}")
        diagnostic = base.removesuffix(f"_{self.extractor}") in DIAGNOSTICS
        if diagnostic != (self.better == "neither"):
            expected = '"neither"' if diagnostic else '"lower" or "higher"'
            raise ValueError(f"{self.name} is better {self.better!r}, expected {expected}")
        if (self.std is None) != (self.n_seeds == 1):
            raise ValueError(f"{self.name} needs std (over evaluation seeds) exactly where n_seeds > 1")
        return self


class Result(Strict):
    """The whole of result.json, schema version 1."""

    schema_version: Literal[1]
    genbench_version: Name
    command: Annotated[list[Line], Field(max_length=200)]
    config: dict[str, JsonValue]
    config_hash: Sha256
    group_hash: Sha256
    git: Git
    dataset: Dataset
    model: Model
    training: Training
    device: Device
    weights: Literal["ema", "raw"]
    sampling: Sampling
    metrics: Annotated[list[Metric], Field(max_length=100)]
    versions: Annotated[dict[Name, Name], Field(max_length=50)]
    created: Moment

    @field_validator("config")
    @classmethod
    def _bounded(cls, config: dict[str, Any]) -> dict[str, Any]:
        _bound(config)
        return config

    @model_validator(mode="after")
    def _coherent(self) -> Self:
        names = [metric.name for metric in self.metrics]
        if len(set(names)) < len(names):
            raise ValueError(f"metric names must be distinct, found {names}")
        for metric in self.metrics:
            if metric.extractor is None:  # a likelihood is of test images, not of samples
                continue
            if metric.n_seeds != len(self.sampling.seeds):
                raise ValueError(
                    f"{metric.name} has n_seeds {metric.n_seeds}, sampling {self.sampling.seeds}"
                )
            if metric.n_samples > self.sampling.n_samples:
                drawn = self.sampling.n_samples
                raise ValueError(f"{metric.name} is of {metric.n_samples} samples, but {drawn} were drawn")
        return self

    @classmethod
    def read(cls, path: Path) -> Result:
        """The record in a file. Raises UserError, one line naming file and field, where it is no record."""
        return parse(cls, read_json(Path(path)), Path(path))

    def write(self, path: Path) -> None:
        """Writes the record atomically, keys sorted. Raises UserError where it would be too large to read."""
        contents = to_bytes(self)
        if len(contents) > RECORD_LIMIT:
            raise UserError(f"{path}: a record of {len(contents):,} bytes; at most {RECORD_LIMIT:,} are read")
        write_atomically(Path(path), contents)


def parse(kind: type[Record], value: Any, path: Path) -> Record:
    """`value` (plain Python values) as a `kind`; raises UserError, one line naming `path` and the fields."""
    try:
        return kind.model_validate(value)
    except ValidationError as error:
        found = [_explain(problem) for problem in error.errors(include_url=False)]
        more = f" (and {len(found) - 3} more)" if len(found) > 3 else ""
        raise UserError(f"{path}: {'; '.join(found[:3])}{more}") from error


def to_bytes(record: BaseModel) -> bytes:
    """The canonical file of a record: JSON, keys sorted, two spaces, ASCII, a newline at the end."""
    plain = record.model_dump(mode="json")
    return (json.dumps(plain, sort_keys=True, indent=2, allow_nan=False) + "\n").encode()


def schema(kind: type[BaseModel] = Result) -> str:
    """JSON Schema of a kind of record, as text ending in a newline."""
    return json.dumps(kind.model_json_schema(), sort_keys=True, indent=2) + "\n"


def now() -> str:
    """The present moment as a record writes it: UTC, whole seconds, "2025-01-31T12:00:00Z"."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def today() -> str:
    """The date of the moment, UTC: "2025-01-31"."""
    return datetime.now(UTC).date().isoformat()


def _explain(problem: Any) -> str:
    where = ".".join(str(part)[:80] for part in problem["loc"]) or "the record"
    found = repr(problem["input"])
    shown = "" if isinstance(problem["input"], dict | list) else f" (found {found[:60]})"
    return printable(" ".join(f"{where[:200]}: {problem['msg'][:200]}{shown}".split()))


def _bound(config: Any) -> None:
    """Raises ValueError for what no configuration needs; level by level, for it runs on every record read."""
    level, total = [config], 0
    for _ in range(21):
        inner: list[Any] = []
        for value in level:
            if isinstance(value, str):
                if len(value) > 1000:
                    raise ValueError("a string of more than 1,000 characters")
                if not value.isascii() and any("\ud800" <= character <= "\udfff" for character in value):
                    raise ValueError("a string with half a character (a lone surrogate)")
            elif isinstance(value, dict):
                inner.extend(value)
                inner.extend(value.values())
            elif isinstance(value, list):
                inner.extend(value)
            elif isinstance(value, float):
                if not math.isfinite(value):
                    raise ValueError(f"{value} is not a finite number")
            elif isinstance(value, int) and abs(value) >= 2**63:
                raise ValueError("an integer of more than 64 bits")
        total += len(level)
        if total + len(inner) > 10_000:
            raise ValueError("more than 10,000 values")
        if not inner:
            return
        level = inner
    raise ValueError("nested more than 20 deep")
