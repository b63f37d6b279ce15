"""The command line, `python -m genbench NAME=VALUE ...`: Hydra composes a configuration, a task runs it.

`genbench.words` reads shorter ways of typing a task.

Torch is not imported here: help and configuration errors answer at once. A run that fails for a reason the
user can mend prints that reason and nothing else. In a multirun one failure does not hide the others: all
jobs are tried and the failures listed at the end.
"""

from __future__ import annotations

import importlib
import os
import re
import signal
import sys
import traceback
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict

from genbench import help as help_page
from genbench import searchpath, unread, validation
from genbench.configuration import SAMPLER_PARTS, conf_dir, resolve
from genbench.errors import Stopped, UserError
from genbench.harness import memory
from genbench.harness.rundir import RunDirectory
from genbench.misspelt import REFUSALS, explained, refuse_dashes
from genbench.unread import ending_with_the_reader, nobody_reads
from genbench.words import key_of, spelled_out, unquoted

TASKS = tuple(sorted(p.stem for p in (Path(__file__).parent / "tasks").glob("[a-z]*.py")))
"""Names of the tasks: the modules of genbench.tasks."""

IMPLIED = {"extractor": ["model=classifier"], "solvers": ["model=oracle", "dataset=cifar10"]}
"""What typing a task says besides, where it is not about a run and not typed otherwise.

An oracle has no data set, but corruptions and samplers have settings by data set; CIFAR-10's are published.
"""

OF_A_RUN = ("evaluate", "sample", "solvers", "walk")
"""Tasks that take a finished run's configuration and lay what was typed over it; some do without one."""

SECTIONS = frozenset({"dataset", "model", "sampler", "optim", "ema", "trainer", "metrics", "logger"})
"""The groups a run reads; every other group is a part of one of these."""


CHOOSING = frozenset({"recipe", "experiment", "hydra", "measures"})
"""Groups that set values of others and are no part themselves."""


@dataclass(frozen=True)
class Typed:
    """What was typed: every override, those that were typed now (not recalled from a run), and the job.

    `finished` is where a task that ends with a record leaves its run directory.
    """

    overrides: Sequence[str]
    now: Sequence[str]
    job: int | None
    finished: list[Path] = field(default_factory=list)


@dataclass
class Sweep:
    """The jobs of a multirun: folders of those that ended with a record, what failed, and Hydra's folder."""

    runs: list[Path] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    folder: Path | None = None


_sweep = Sweep()
_recalled: list[str] = []


def recall(saved: Sequence[str], typed: Sequence[str]) -> list[str]:
    """The overrides of a run that still hold when `typed` is laid over them.

    A key typed again replaces the saved one, and typing a whole group (sampler=heun) also drops what was
    saved for keys inside it and for its parts (sampler.rule.eta=0.5, variance=small), which the new choice
    may not have.
    """
    keys = [key_of(override) for override in typed]
    if "sampler" in keys:
        keys += SAMPLER_PARTS
    return [
        override
        for override in saved
        if not any(key_of(override) == key or key_of(override).startswith(f"{key}.") for key in keys)
    ]


def _recalled_overrides(arguments: Sequence[str]) -> list[str]:
    """For `task=evaluate run_dir=X`: what was typed when X was started; else what the task implies."""
    values = dict(argument.split("=", 1) for argument in arguments if "=" in argument)
    values = {key: unquoted(value) for key, value in values.items()}
    task = values.get("task")
    if task not in OF_A_RUN or (task in IMPLIED and "run_dir" not in values):
        return [each for each in IMPLIED.get(str(task), []) if key_of(each) not in values]
    if "run_dir" not in values:
        raise UserError(f"{task} needs the run it is about: type {task} RUN, or run_dir=PATH.")
    directory = RunDirectory(Path(values["run_dir"]))
    if directory.begins(values):
        return []
    saved = directory.overrides()
    return recall(saved, [a for a in arguments if "=" in a])


def sections(config: dict[str, Any], groups: Iterable[str]) -> dict[str, Any]:
    """`config` without the groups composed only to be used inside others (schedule, network, ...)."""
    parts = {group.split("@")[0].split("/")[0] for group in groups} - SECTIONS
    return {key: value for key, value in config.items() if key not in parts}


def composed(overrides: Sequence[str], typed: Sequence[str] = ()) -> dict[str, Any]:
    """The resolved configuration that these overrides would run, beside the one that is running.

    typed: those of them that must be of use. Raises UserError where Hydra cannot compose it, and where a run
    would refuse it.
    """
    try:
        cfg = hydra.compose("config", list(overrides), return_hydra_config=True)
    except REFUSALS as error:
        raise explained(error, overrides, conf_dir()) from error
    choices = cfg.hydra.runtime.choices
    with open_dict(cfg):
        del cfg["hydra"]
    return _checked(cfg, choices, typed)


def _checked(cfg: DictConfig, choices: Iterable[str], typed: Sequence[str]) -> dict[str, Any]:
    """The sections of `cfg`, resolved, once its values and what was typed have been checked."""
    config = sections(resolve(cfg), choices)
    validation.check(config)
    refuse_unused(cfg, choices, typed)
    return config


def refuse_unused(cfg: DictConfig, groups: Iterable[str], typed: Iterable[str]) -> None:
    """Raises UserError for a typed part (divergence=kl, grid.start=0.9) that nothing in the run is made of.

    A part is used where a section, or a part that is used, interpolates it: ${divergence}.
    """
    parts = {group.split("@")[0].split("/")[0] for group in groups} - SECTIONS
    written = OmegaConf.to_container(cfg, resolve=False)
    assert isinstance(written, dict)
    used: set[str] = set()
    waiting = [str(written.get(section)) for section in SECTIONS]
    while waiting:
        found = set(re.findall(r"\$\{(\w+)", waiting.pop())) & parts - used
        used |= found
        waiting += [str(written.get(part)) for part in found]
    for override in typed:
        part = key_of(override).split(".")[0].split("/")[0]
        if part in parts - used - CHOOSING:
            raise UserError(
                f"{override} would change nothing: no part of this run uses {part}. Leave it out, or choose "
                "a model, sampler or metrics that does."
            )


def _run(cfg: DictConfig) -> float | None:
    hydra_config = HydraConfig.get()
    multirun = hydra_config.mode == RunMode.MULTIRUN
    overrides = [str(override) for override in hydra_config.overrides.task]
    # Where further configuration is found is Hydra's business, but the run cannot be had again without.
    overrides += [str(o) for o in hydra_config.overrides.hydra if key_of(str(o)) == searchpath.KEY]
    now = [override for override in overrides if override not in _recalled]
    config = _checked(cfg, hydra_config.runtime.choices, now)
    if config["task"] not in TASKS:
        raise UserError(f"task={config['task']} is not a task. Tasks: {', '.join(TASKS)}.")
    task = importlib.import_module(f"genbench.tasks.{config['task']}")
    if config["threads"] is not None:
        importlib.import_module("torch").set_num_threads(config["threads"])
    job = hydra_config.job.num if multirun else None
    return carry_out(task, config, Typed(overrides, now, job, _sweep.runs))


def carry_out(task: Any, config: dict[str, Any], typed: Typed) -> float | None:
    """Runs a task's module. Raises UserError where memory has run out, with what to type."""
    try:
        return task.run(config, typed)
    except (RuntimeError, MemoryError) as error:
        if said := memory.advice(error, config):
            raise UserError(said) from error
        raise


def _entry(cfg: DictConfig) -> Any:
    multirun = HydraConfig.get().mode == RunMode.MULTIRUN
    _sweep.folder = Path(HydraConfig.get().sweep.dir) if multirun else None
    try:
        return _run(cfg)
    except UserError as error:
        _fail(f"genbench: {error}", multirun)
    except Stopped as stopped:
        raise SystemExit(128 + stopped.number) from None
    except KeyboardInterrupt:
        print("genbench: interrupted", file=sys.stderr)
        raise SystemExit(128 + signal.SIGINT) from None
    except Exception as error:
        if isinstance(error, BrokenPipeError) and nobody_reads():
            raise SystemExit(unread.STATUS) from None
        _fail(traceback.format_exc(), multirun, status=1)


def _fail(message: str, multirun: bool, status: int = 2) -> None:
    print(message, file=sys.stderr)
    if not multirun:
        raise SystemExit(status)
    overrides = " ".join(HydraConfig.get().overrides.task)
    _sweep.failures.append(f"{overrides}: {message.strip().splitlines()[-1]}")


def register_resolvers() -> None:
    """The functions conf/ may use in ${...}: `if:condition,then,otherwise` and `times:a,b`."""
    if not OmegaConf.has_resolver("if"):
        OmegaConf.register_new_resolver("if", lambda condition, yes, no: yes if condition else no)
    if not OmegaConf.has_resolver("times"):
        OmegaConf.register_new_resolver("times", lambda a, b: a * b)


def main() -> None:
    """Runs what the command line says; exits 2 on a user's error, 1 where a job of a multirun failed,
    128 + n where signal n stopped it."""
    register_resolvers()
    _sweep.runs.clear()
    _sweep.failures.clear()
    with ending_with_the_reader():
        try:
            _main(conf_dir())
        except UserError as error:
            print(f"genbench: {error}", file=sys.stderr)
            raise SystemExit(2) from None


def _main(folder: Path) -> None:
    sys.argv[1:] = spelled_out(sys.argv[1:], TASKS)
    if not {"-h", "--help"}.isdisjoint(sys.argv[1:]):
        print(help_page.text(folder, TASKS), end="")
        return
    refuse_dashes(sys.argv[1:], folder)
    _recalled[:] = _recalled_overrides(sys.argv[1:])
    # Among the overrides and before those typed now: Hydra takes options, such as -m, first or last.
    place = next((n for n, argument in enumerate(sys.argv) if n and "=" in argument), len(sys.argv))
    sys.argv[place:place] = _recalled
    typed = [argument for argument in sys.argv[1:] if not argument.startswith("-")]
    searchpath.check(typed)
    # Asked for full errors it raises what it would print; what a task raises, `_entry` has seen to.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    # A law over 256 grey levels of every pixel is large and soon gone. The system clears what it hands out,
    # in pages of 2 MiB in about half the time. Torch reads this once, when it first needs memory.
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
    try:
        hydra.main(version_base="1.3", config_path=str(folder), config_name="config")(_entry)()
    except REFUSALS as error:
        raise explained(error, typed, folder, TASKS) from error
    _conclude_sweep()


def _conclude_sweep() -> None:
    if _sweep.failures:
        print(f"\n{len(_sweep.failures)} of the jobs failed:", file=sys.stderr)
        for failure in _sweep.failures:
            print(f"  {failure}", file=sys.stderr)
    if (len(_sweep.runs) > 1 or (_sweep.runs and _sweep.failures)) and os.environ.get("RANK", "0") == "0":
        from genbench.sweep import sheet, summary

        print(f"\n{summary(_sweep.runs)}")
        if _sweep.folder is not None:
            print(f"grids side by side: {sheet(_sweep.runs, _sweep.folder / 'grids.png')}")
    if _sweep.failures:
        raise SystemExit(1)
