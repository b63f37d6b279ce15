"""What of a configuration determines the result, and what is only where and how the run is carried out.

Two runs whose determining keys agree have the same `config_hash`, and a run directory resumes only under
the configuration it was started with. `group_hash` leaves the training seed out as well: the runs of one
group are training seeds of one recipe, and their mean and spread are what a leaderboard row says.

Hashes are SHA-256 over canonical JSON: keys sorted, no white space, whole-numbered floats written as integers
(`eta=1` and `eta=1.0` are one configuration), non-finite floats as the strings "inf", "-inf", "nan". Torch is
not imported here: command lines and the leaderboard hash configurations without it.
"""

from __future__ import annotations

import enum
import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from genbench.errors import UserError
from genbench.precisions import BEFORE

CARRIED_OUT = frozenset(
    {
        "task",
        "run_dir",
        "device",
        "threads",
        "data_root",
        "logger",
        "budget",
        "checkpoint",
        "hydra",
        "speed",  # what task=speed times
        "solvers",  # what task=solvers compares
        "walk",  # which runs task=walk shows
        "runs",  # which runs task=compare compares
        "groups",  # what task=list lists
        "n",  # how many images task=sample writes
        "format",  # and as what
        "images",  # where task=score finds its images
        "images_range",  # and which of their values are black and white
        "dataset.title",
        "dataset.licence",
        "model.path",  # where a model that comes with its weights is found; what is there, model.sha256 says
        "model.title",
        "sampler.batch_size",
        "sampler.compile",
        "sampler.graphs",
        "sampler.title",
        "metrics.batch_size",
        "metrics.weights",  # the weights' sha256 stands in the record
        "trainer.log_every",
        "trainer.sample_every",
        "trainer.evaluate_every",
        "trainer.evaluate_samples",  # scores on the way, for the curve; the record's own are at the end
        "trainer.checkpoint_every",
        "trainer.keep",
        "trainer.compile",
        "trainer.progress",
    }
)
"""Dotted keys (each with everything beneath it) that say where and how a run is carried out."""

AS_BEFORE = {"sampler.precision": BEFORE}
"""Keys that are younger than recorded results, and the values that say what those did without saying it.

With such a value a configuration is the same as without the key, hash and all.
"""

SAMPLER_PARTS = ("grid", "variance", "rule", "draw", "prior")
"""Groups that belong to a sampler and go when another one is chosen."""

METRICS_PARTS = ("divergence", "likelihood")
"""Groups that belong to the metrics of a finished run."""

SHOWN = 12
"""How many characters of a hash are shown to people; the whole 64 are compared."""

_ABSENT = object()

_SECTIONS = frozenset(
    ".".join(parts[:count])
    for parts in (key.split(".") for key in (*CARRIED_OUT, *AS_BEFORE))
    for count in range(1, len(parts))
)
"""Where such keys can be: what is in other sections all determines the result."""

_PLAIN = (str, int, type(None))  # bool is an int


def conf_dir() -> Path:
    """The folder of configuration groups: inside the package (a wheel), else beside it (a checkout).

    Raises UserError where neither holds config.yaml.
    """
    package = Path(__file__).resolve().parent
    candidates = (package / "conf", package.parent / "conf")
    for folder in candidates:
        if (folder / "config.yaml").is_file():
            return folder
    raise UserError(
        f"genbench's configuration is missing: neither {candidates[0]} nor {candidates[1]} has a "
        "config.yaml. Reinstall genbench, or run it from a complete checkout."
    )


def resolve(cfg: DictConfig | Mapping[str, Any]) -> dict[str, Any]:
    """`cfg` with every interpolation resolved, as plain dicts, lists, strings, numbers, bools and None.

    Everything in it can be written as JSON: tuples become lists, keys strings, enum members their names,
    other objects (paths) their text, non-finite floats the strings "inf", "-inf" and "nan" (which `float`
    reads back).
    Raises UserError naming the key where a mandatory value (`???`) was not given or an interpolation fails.
    """
    if isinstance(cfg, DictConfig):
        try:
            cfg = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)  # type: ignore[assignment]
        except OmegaConfBaseException as error:
            key = getattr(error, "full_key", None) or "a key"
            reason = str(error).splitlines()[0]
            raise UserError(
                f"The configuration has no value for {key} ({reason}). Type {key}=VALUE."
            ) from error
    plain = _plain(cfg)
    plain.pop("hydra", None)
    return plain


def _plain(value: Any) -> Any:
    if isinstance(value, DictConfig | ListConfig):
        value = OmegaConf.to_container(value, resolve=True, throw_on_missing=True)
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    if isinstance(value, enum.Enum):
        return value.name
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else str(float(value))
    if value is None or isinstance(value, bool | int | str):
        return value
    return str(value)


def determining(config: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a resolved configuration that determines the result.

    `config` without `CARRIED_OUT`, and without `AS_BEFORE` where it says what was always done.
    """
    return _without(config, CARRIED_OUT, "")


def _without(config: Mapping[str, Any], left_out: frozenset[str], prefix: str) -> dict[str, Any]:
    kept: dict[str, Any] = {}
    for key, value in config.items():
        name = f"{prefix}{key}"
        if name in left_out or (name in AS_BEFORE and value == AS_BEFORE[name]):
            continue
        inner = value
        if name in _SECTIONS and isinstance(value, Mapping):
            inner = _without(value, left_out, f"{name}.")
        if inner != {} or value == {}:  # a group of nothing but such keys is one more of them
            kept[key] = inner
    return kept


def config_hash(config: Mapping[str, Any]) -> str:
    """SHA-256 (64 hexadecimal digits) of what determines the result in a resolved configuration."""
    return hashes(config)[0]


def group_hash(config: Mapping[str, Any]) -> str:
    """`config_hash` without the training seed: one value for all training seeds of a recipe."""
    return hashes(config)[1]


def hashes(config: Mapping[str, Any]) -> tuple[str, str]:
    """`config_hash` and `group_hash`, in one walk over the configuration."""
    normal = _normal(determining(config))
    group = {key: value for key, value in normal.items() if key != "seed"}
    whole, seedless = (hashlib.sha256(_json(value).encode()).hexdigest() for value in (normal, group))
    return whole, seedless


def _canonical(value: Any) -> str:
    return _json(_normal(value))


def _json(normal: Any) -> str:
    return json.dumps(normal, sort_keys=True, separators=(",", ":"), allow_nan=False)


def _normal(value: Any) -> Any:
    """`value` with one spelling for each number: whole floats as integers, non-finite ones as strings."""
    if isinstance(value, _PLAIN):  # first: asking a scalar whether it is a Mapping takes most of the time
        return value
    if isinstance(value, dict | Mapping):
        return {key: _normal(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_normal(inner) for inner in value]
    if isinstance(value, float):
        if not math.isfinite(value):
            return str(value)
        return int(value) if value.is_integer() and abs(value) < 2.0**53 else value
    return value


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """One line for each determining key that differs, such as "trainer.batch_size: 128 -> 64", sorted by key.

    Keys that only one side has are shown as "(absent)"; lists are compared and shown whole.
    """
    before, after = dict(_leaves(determining(old))), dict(_leaves(determining(new)))
    lines = []
    for key in sorted(before.keys() | after.keys()):
        was, now = before.get(key, _ABSENT), after.get(key, _ABSENT)
        if was is _ABSENT or now is _ABSENT or _canonical(was) != _canonical(now):
            lines.append(f"{key}: {_shown(was)} -> {_shown(now)}")
    return lines


def _leaves(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in config.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping) and value:
            yield from _leaves(value, f"{name}.")
        else:
            yield name, value


def _shown(value: Any) -> str:
    return "(absent)" if value is _ABSENT else json.dumps(_normal(value), sort_keys=True)


def refuse_resume(old: Mapping[str, Any], new: Mapping[str, Any], grows: bool) -> None:
    """Raises UserError, showing the differences, where going on with `new` would change the result of `old`.

    `trainer.steps` alone may grow, and only where `grows`: where no schedule depends on the total number of
    steps. Both configurations are resolved ones.
    """
    lines = differences(old, new)
    steps = [line for line in lines if line.startswith("trainer.steps: ")]
    advice = ""
    if steps:
        was, now = _steps(old), _steps(new)
        if grows and was is not None and now is not None and now > was:
            lines.remove(steps[0])
        elif grows:
            advice = "\ntrainer.steps may grow but not shrink."
        else:
            advice = "\ntrainer.steps may not change here: a schedule depends on the number of steps."
    if lines:
        raise UserError(
            "This run directory holds a run of another configuration; resuming would change the result:\n  "
            + "\n  ".join(lines)
            + advice
            + "\nType the old values to resume, or give a new run_dir=PATH to start afresh."
        )


def _steps(config: Mapping[str, Any]) -> int | None:
    steps = (config.get("trainer") or {}).get("steps")
    return steps if isinstance(steps, int) else None
