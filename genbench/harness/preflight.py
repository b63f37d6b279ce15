"""Before any training: everything the run will need at its end, checked in seconds.

Each check prints one line of what was found or raises UserError saying what to do.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import yaml

from genbench.configuration import conf_dir
from genbench.contracts import ClassConditional, Generator, Pretrained, Sampler, Together, UserError
from genbench.harness.assembly import parameter_count
from genbench.harness.estimate import Durations
from genbench.harness.progress import format_duration
from genbench.metrics.extractors import Extractor
from genbench.metrics.inception_score import SPLITS

DAY = 86_400.0


def check_sampler(sampler: Sampler, model: Generator, name: str) -> None:
    """Raises UserError, naming the samplers that do fit, where `sampler` cannot drive `model`."""
    if isinstance(model, sampler.needs):
        sampler.check(model)
        return
    fitting = [choice for choice, kind in known_samplers().items() if isinstance(model, kind.needs)]
    raise UserError(
        f"sampler={name} draws from models of another kind than this one. Samplers that fit: "
        f"{', '.join(fitting) or 'none in conf/sampler'}."
    )


def check_trainable(model: Generator) -> None:
    """Raises UserError for a generator without phases."""
    if isinstance(model, Pretrained):
        raise UserError(
            "This model comes with its weights: type task=evaluate or task=sample, and a new run_dir=PATH."
        )
    if not model.phases():
        raise UserError(
            "This model has nothing to train. Oracles are for task=solvers, which compares samplers on them."
        )


def check_compilation(model: Generator, config: Mapping[str, Any]) -> None:
    """Raises UserError where torch.compile's CUDA graphs would overwrite gradients that are in use still."""
    phases = model.phases()
    several = len(phases) > 1 or any(isinstance(each, Together) or each.repeats > 1 for each in phases)
    if config["trainer"]["compile"] == "reduce-overhead" and (several or config["trainer"]["accumulate"] > 1):
        raise UserError(
            "trainer.compile=reduce-overhead keeps gradients until the next evaluation and no longer: it is "
            "for models of one phase with trainer.accumulate=1. Type trainer.compile=true."
        )


def check_conditional(model: Generator, config: Mapping[str, Any]) -> None:
    """Raises UserError where conditional=true is typed for a model or a data set without classes."""
    knows = isinstance(model, ClassConditional) and model.classes > 0
    if config["conditional"] and not knows:
        classes = config["dataset"]["classes"]
        reason = "the data set has no labels" if not classes else f"{config['model']['name']} takes no labels"
        raise UserError(f"conditional=true, but {reason}. Type conditional=false, or choose another.")


def check_numbers(config: Mapping[str, Any], world: int) -> None:
    """Raises UserError for numbers that would only be refused when the run is over."""
    metrics, settings = config["metrics"], config["trainer"]
    least = max(SPLITS, world)
    scored = {"metrics.n_samples": metrics["n_samples"]}
    if settings["evaluate_every"]:
        scored["trainer.evaluate_samples"] = settings["evaluate_samples"]
    for name, count in scored.items():
        if count < least:
            raise UserError(f"{name}={count}: at least {least} images are needed to be scored.")


def known_samplers() -> dict[str, type[Sampler]]:
    """The sampler classes that conf/sampler names, by choice."""
    found = {}
    for file in sorted((conf_dir() / "sampler").glob("*.yaml")):
        target = (yaml.safe_load(file.read_text()) or {}).get("_target_")
        if target:
            module, _, name = target.rpartition(".")
            found[file.stem] = getattr(import_module(module), name)
    return found


def check_disk(folder: Path, model: Generator, config: Mapping[str, Any]) -> str:
    """A line on disk space for checkpoints and samples; UserError where it does not suffice."""
    # A checkpoint holds weights, their average and two moments; a new one is written before an old one goes.
    numbers = parameter_count(model) * 4 * 4 * (config["trainer"]["keep"] + 2)
    images = config["metrics"]["n_samples"]
    for size in model.image_shape:
        images *= size
    needed, free = numbers + images, shutil.disk_usage(folder).free
    if free < needed:
        raise UserError(
            f"{folder} has {_gigabytes(free)} free, and this run may need {_gigabytes(needed)} for "
            "checkpoints and samples. Free some, give another run_dir, or type trainer.keep=1."
        )
    return f"{_gigabytes(needed)} at most, {_gigabytes(free)} free"


def describe_model(model: Generator, sampler: Sampler, config: Mapping[str, Any]) -> str:
    """A line on what is trained and how it is sampled."""
    evaluations = sampler.evaluations()
    nfe = "" if evaluations is None else f" ({evaluations:,} evaluation{'s' * (evaluations != 1)} an image)"
    parameters = parameter_count(model)
    size = f"{parameters / 1e6:.2f} M" if parameters >= 1e5 else f"{parameters:,}"
    return f"{config['model']['name']}, {size} parameters, sampled by {config['sampler']['name']}{nfe}"


def describe_scores(extractors: Sequence[Extractor], config: Mapping[str, Any]) -> str:
    """A line on what the samples will be scored with."""
    metrics = config["metrics"]
    seeds = len(metrics["seeds"])
    names = " and ".join(extractor.name for extractor in extractors)
    return (
        f"{metrics['n_samples']:,} samples against {config['dataset']['reference']}, features of {names}, "
        f"{seeds} evaluation seed{'s' if seeds > 1 else ''}"
    )


def describe_durations(durations: Durations, config: Mapping[str, Any], steps_left: int, world: int) -> str:
    """A line on how long the run will take here, with smaller choices where that is days."""
    training, sampling = predict(durations, config, steps_left, world)
    line = f"about {format_duration(training)} of training ({steps_left:,} steps)"
    if sampling is not None:
        line += f" and {format_duration(sampling)} of sampling"
    if training + (sampling or 0.0) > DAY:
        line += ". That is days: " + "; ".join(_smaller(durations, config))
    return line


def predict(
    durations: Durations, config: Mapping[str, Any], steps_left: int, world: int
) -> tuple[float, float | None]:
    """Seconds of training and of drawing the samples to score."""
    training = durations.step * steps_left
    if durations.image is None:
        return training, None
    count = config["metrics"]["n_samples"] * len(config["metrics"]["seeds"])
    return training, durations.image * count / world


def _smaller(durations: Durations, config: Mapping[str, Any]) -> list[str]:
    dataset, model = config["dataset"]["name"], config["model"]["name"]
    choices = [
        f"trainer.steps={max(1, int(3600 / durations.step)):,} would train for an hour".replace(",", "")
    ]
    for short in sorted((conf_dir() / "experiment" / dataset).glob(f"{model}-*short.yaml")):
        choices.append(f"experiment={dataset}/{short.stem} is a short recipe")
    if (conf_dir() / "recipe" / "digits" / f"{model}.yaml").is_file() and dataset != "digits":
        choices.append(f"model={model} dataset=digits takes minutes")
    if (durations.image or 0) * config["metrics"]["n_samples"] > 3600:
        steps = config["sampler"].get("steps")
        fewer = f"sampler.steps below {steps} and " if steps else ""
        choices.append(f"{fewer}metrics.n_samples below {config['metrics']['n_samples']:,} sample faster")
    return choices


def _gigabytes(count: float) -> str:
    return f"{count / 1e9:.2f} GB" if count < 1e10 else f"{count / 1e9:.0f} GB"
