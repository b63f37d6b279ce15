"""From a finished run to its record: everything a reader needs to trust its numbers."""

from __future__ import annotations

import platform
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from genbench import __version__
from genbench.configuration import config_hash, group_hash
from genbench.contracts import Generator
from genbench.data.images import ImageSet
from genbench.harness.assembly import parameter_count
from genbench.harness.scoring import Scored
from genbench.leaderboard.record import (
    Dataset,
    Device,
    Git,
    Metric,
    Model,
    Result,
    Sampling,
    Training,
    now,
)
from genbench.metrics.card import closed, standing
from genbench.metrics.evaluation import MetricValue

LIBRARIES = ("torch", "torchvision", "torch-fidelity", "numpy", "triton", "hydra-core")
"""Libraries whose versions a record states."""


@dataclass(frozen=True)
class Trained:
    """What training says of itself in the record."""

    steps: int
    images_seen: int
    wall_seconds: float
    complete: bool
    averaged: bool
    world: int


def compose(
    config: Mapping[str, Any],
    command: Sequence[str],
    generator: Generator,
    reference: ImageSet,
    trained: Trained,
    scored: Scored,
    device: torch.device,
) -> Result:
    """The record of a run whose samples have been scored."""
    return Result(
        schema_version=1,
        genbench_version=__version__,
        command=list(command),
        config=dict(config),
        config_hash=config_hash(config),
        group_hash=group_hash(config),
        git=git_state(),
        dataset=Dataset(
            name=reference.name,
            split=reference.split,
            resolution=reference.images.shape[-1],
            channels=reference.images.shape[1],
            sha256=reference.sha256,
            n_images=len(reference),
            provenance=dict(reference.provenance),
        ),
        model=Model(
            name=config["model"]["name"],
            family=config["model"].get("family", "other"),
            parameters=parameter_count(generator),
        ),
        training=Training(
            steps=trained.steps,
            images_seen=trained.images_seen,
            batch_size=config["trainer"]["batch_size"],
            wall_seconds=trained.wall_seconds,
            device_seconds=trained.wall_seconds * trained.world,
            seed=config["seed"],
            stopped="steps" if trained.complete else "budget",
            world_size=trained.world,
            precision=config["trainer"]["precision"],
        ),
        device=Device(name=device_name(device), type=device.type, count=trained.world),
        weights="ema" if trained.averaged else "raw",
        sampling=Sampling(
            sampler=config["sampler"]["name"],
            steps=config["sampler"].get("steps"),
            nfe_mean=scored.nfe_mean,
            nfe_max=scored.nfe_max,
            seconds_per_image=scored.seconds_per_image,
            n_samples=config["metrics"]["n_samples"],
            conditional=bool(config["conditional"]),
            seeds=list(config["metrics"]["seeds"]),
            fitted_sha256=scored.fitted_sha256,
        ),
        metrics=list(scored.metrics),
        versions=library_versions(),
        created=now(),
    )


def describe(result: Result) -> str:
    """A record in a few lines: its scores and what they cost."""
    width = max([22, *(len(metric.name) for metric in result.metrics)])
    lines = []
    for metric in result.metrics:
        value = f"{metric.value:.4g}{spread(metric)}"
        lines.append(f"  {metric.name:<{width}} {value}  ({metric.n_samples:,} samples{_place(metric)})")
    sampling, training = result.sampling, result.training
    cost = f"{sampling.nfe_mean:g} evaluations and {sampling.seconds_per_image:.3g} s an image"
    trained = f"{training.images_seen:,} training images in {training.wall_seconds:.0f} s"
    lines.append(f"  {'cost':<{width}} {cost}; {trained}")
    return "\n".join(lines)


def spread(metric: Metric | MetricValue) -> str:
    """How uncertain a metric is, by the best that is known: over evaluation seeds, images or splits."""
    if metric.std is not None:
        return f" ± {metric.std:.3g} over {metric.n_seeds} evaluation seeds"
    if metric.bootstrap_std is not None:
        return f" ± {metric.bootstrap_std:.3g} by bootstrap over images"
    return "" if metric.split_std is None else f" ± {metric.split_std:.3g} over splits"


def _place(metric: Metric) -> str:
    """Where a shipped extractor's distance stands on its card's scale."""
    card = standing(metric.name, metric.extractor)
    if card is None:
        return ""
    way = closed(metric.value, card)
    if way < 0:
        return "; farther off than a per-pixel Gaussian"
    return f"; {way:.0%} of the way from a per-pixel Gaussian to unseen real images"


def provenance(command: Sequence[str], device: torch.device) -> dict[str, Any]:
    """What a report that is no record says of where it comes from."""
    return {
        "command": ["python", "-m", "genbench", *command],
        "created": now(),
        "device": device_name(device),
        "git": git_state().model_dump(),
        "versions": library_versions(),
    }


@cache
def git_state() -> Git:
    """The commit of the checkout genbench runs from, and whether its code or configuration differ from it.

    New files in genbench/ and conf/ count; both are None outside a checkout.

    Asked once a process, when its code has just been loaded: what is edited while it runs is not what runs.
    """
    folder = Path(__file__).resolve().parent

    def ask(*words: str) -> str | None:
        try:
            answer = subprocess.run(
                ["git", "-C", str(folder), *words], capture_output=True, text=True, timeout=20, check=False
            )
        except (OSError, subprocess.TimeoutExpired):
            return None
        return answer.stdout.strip() if answer.returncode == 0 else None

    # An installed package may lie inside somebody else's checkout (a .venv in their repository).
    if ask("ls-files", "--error-unmatch", str(Path(__file__).resolve())) is None:
        return Git(commit=None, dirty=None)
    status = ask("status", "--porcelain", "--", f":/{folder.parent.name}", ":/conf")
    return Git(commit=ask("rev-parse", "HEAD"), dirty=None if status is None else bool(status))


def device_name(device: torch.device) -> str:
    """The maker's name of a device."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        model = platform.processor() or platform.machine() or "cpu"
    return f"{model}, {torch.get_num_threads()} threads"[:100]


def library_versions() -> dict[str, str]:
    """Versions of Python, genbench and the libraries that numbers may depend on."""
    versions = {"python": platform.python_version(), "genbench": __version__}
    for library in LIBRARIES:
        try:
            versions[library] = version(library)
        except PackageNotFoundError:
            continue
    return versions
