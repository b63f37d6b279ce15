"""A run brought back: its configuration with new choices laid over it, and its weights.

A model that comes with its weights, or has them from `checkpoint`, needs no run before it: its first
evaluation makes the run directory.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from genbench.configuration import CARRIED_OUT, METRICS_PARTS, SAMPLER_PARTS
from genbench.contracts import Generator, Pretrained, UserError
from genbench.harness.assembly import Assembly
from genbench.harness.checkpoint import Checkpoints
from genbench.harness.fetched import local
from genbench.harness.recording import Trained
from genbench.harness.rundir import RunDirectory
from genbench.words import key_of

REPLACEABLE = (
    "task",
    "device",
    "threads",
    "data_root",
    "budget",
    "checkpoint",
    "n",
    "format",
    "images",
    "images_range",
    "run_dir",
    "logger",
    "solvers",
    "walk",
)
"""Keys that say where and how: always taken from what was typed now."""

TRAINED = ("model", "dataset", "optim", "ema", "trainer", "seed", "conditional")
"""What the weights depend on."""

RECHOSEN = ("sampler", "metrics", "measures")
"""What a finished run can be given anew."""


LONGEST = 60
"""Characters of what was typed that a name has at most; file systems allow 255 in all."""


def telling(typed: Sequence[str], parts: Collection[str]) -> str:
    """What a folder is named after: those of the overrides `typed` that are of `parts`, as a file's name.

    The sampler's own name is left out, for it stands in front of such names.
    """
    keys = {key_of(each): each.partition("=")[2] for each in typed}
    told = {key for key in keys if key in parts or (key not in CARRIED_OUT and key.split(".")[0] in parts)}
    words = [(key, keys[key]) for key in sorted(told)]
    name = "-".join(f"{key.split('.')[-1]}={value}" for key, value in words if key != "sampler")
    return re.sub(r"[^\w.=+-]+", "_", re.sub(r"[\[\]'\"]", "", name))[:LONGEST]


def recalled(composed: dict[str, Any], typed: Sequence[str]) -> dict[str, Any]:
    """The configuration of the run in `run_dir` with what was typed laid over it (see `overlay`).

    Where none lives there but a model or an experiment was typed, the configuration composed, of a run that
    is to begin.
    """
    directory = RunDirectory(Path(composed["run_dir"]))
    if directory.begins(typed):
        return composed
    return overlay(directory.config(), composed, typed)


def overlay(saved: Mapping[str, Any], composed: Mapping[str, Any], typed: Sequence[str]) -> dict[str, Any]:
    """The configuration of a run with what was typed now laid over it.

    saved: the run's own resolved configuration; composed: the one that Hydra made of what was typed then and
    now; typed: the keys typed now. Raises UserError where something was typed that the weights depend on.
    """
    tops = {key.split(".")[0] for key in typed}
    taken = {*REPLACEABLE, *RECHOSEN, *SAMPLER_PARTS, *METRICS_PARTS, "hydra"}
    tops -= {key for key in (tops - taken) & saved.keys() if _repeated(saved[key], composed[key])}
    if all(_repeated(saved.get(key), composed.get(key)) for key in TRAINED):
        tops &= taken  # the words differ, and mean what the run is
    if changed := sorted(tops - taken):
        other = " Other images of this one have metrics.seeds=[1]." if "seed" in changed else ""
        raise UserError(
            f"{', '.join(changed)} cannot be changed for a run that is trained; a finished run takes "
            f"{', '.join([*RECHOSEN, *SAMPLER_PARTS, *METRICS_PARTS, *REPLACEABLE])}. Train anew for "
            f"anything else.{other}"
        )
    unused = sorted(tops & set(METRICS_PARTS))
    if unused and composed["metrics"] == saved["metrics"]:
        raise UserError(
            f"{unused[0]} is the metrics' here, which do not use it: type metrics={unused[0]} too. "
            "The model was trained with its own and keeps it."
        )
    config = {**saved, **{key: composed[key] for key in REPLACEABLE}}
    if tops & {"sampler", *SAMPLER_PARTS}:
        config["sampler"] = composed["sampler"]
    if tops & {"metrics", "measures", *METRICS_PARTS}:
        config["metrics"] = composed["metrics"]
    return config


def _repeated(saved: Any, composed: Any, key: str = "") -> bool:
    """Whether a section says nothing that the run does not: the same, or nothing where the run found out."""
    if isinstance(saved, Mapping) and isinstance(composed, Mapping):
        return saved.keys() == composed.keys() and all(_repeated(saved[k], composed[k], k) for k in saved)
    return composed == saved or (key, composed) in (("sha256", None), ("precision", "auto"))


def restore(config: Mapping[str, Any], assembly: Assembly) -> tuple[Generator, Trained]:
    """The model to sample from, and how it was trained: from `checkpoint` (a path, or "best"), or the newest.

    A model that comes with its weights has them already. Raises UserError where there is no readable
    checkpoint.
    """
    if isinstance(generator := assembly.generator(), Pretrained):
        return generator.eval(), Trained(0, 0, 0.0, complete=True, averaged=False, world=1)
    directory = RunDirectory(Path(config["run_dir"]))
    checkpoints = Checkpoints(directory.checkpoints)
    if config["checkpoint"] not in (None, "best"):
        state = Checkpoints.read(local(config["checkpoint"]))
    else:
        newest = checkpoints.best() if config["checkpoint"] == "best" else checkpoints.latest()
        if newest is None and checkpoints.latest() is not None:
            raise UserError(
                "checkpoint=best: nothing was scored on the way, so none is known to be best. Leave it out "
                "for the newest, or train with trainer.evaluate_every=N."
            )
        if newest is None:
            raise UserError(
                f"{directory.checkpoints} has no readable checkpoint. Train first, or give checkpoint=PATH."
            )
        state = checkpoints.load(newest)
    average = assembly.average(generator)
    try:
        if average is not None:
            average.load_state_dict(state["average"])
            generator = cast(Generator, average.module)
        else:
            generator.load_state_dict(state["generator"])
    except (RuntimeError, KeyError) as error:
        said = " ".join(" ".join(str(error).splitlines()[1:2] or [str(error)]).split())
        raise UserError(
            f"The checkpoint's tensors are not those of this model ({said}). Type the model, sizes and "
            "averaging that it was trained with."
        ) from error
    trained = Trained(
        steps=state["step"],
        images_seen=state["images_seen"],
        wall_seconds=state["wall_seconds"],
        complete=state["step"] >= config["trainer"]["steps"],
        averaged=average is not None,
        world=state["world"],
    )
    return generator.eval(), trained
