"""A run directory: what a run leaves behind, and the rule that it is continued only as itself.

config.yaml       the resolved configuration          metrics.jsonl   one object a logged step
overrides.yaml    what was typed                      checkpoints/    the training state
result.json       the record                          samples/        grid.png, samples.npz
fitted.safetensors  what the sampler learnt, if anything
"""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from itertools import chain, count
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from genbench.configuration import refuse_resume
from genbench.errors import UserError
from genbench.harness.durable import replace_file
from genbench.searchpath import anchored


class RunDirectory:
    """The files of a run by name."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config_file = path / "config.yaml"
        self.overrides_file = path / "overrides.yaml"
        self.metrics_file = path / "metrics.jsonl"
        self.result_file = path / "result.json"
        self.checkpoints = path / "checkpoints"
        self.samples = path / "samples"

    @property
    def started(self) -> bool:
        """Whether a run lives here."""
        return self.config_file.is_file()

    def config(self) -> dict[str, Any]:
        """The resolved configuration of the run that lives here; UserError where none does."""
        if not self.started:
            raise self._absent(self.config_file)
        config = OmegaConf.to_container(OmegaConf.load(self.config_file))
        if not isinstance(config, dict):
            raise UserError(f"{self.config_file} is not a configuration.")
        return {str(key): value for key, value in config.items()}

    def overrides(self) -> list[str]:
        """What was typed when it was started; UserError where no run lives here."""
        if not self.overrides_file.is_file():
            raise self._absent(self.overrides_file)
        return [str(entry) for entry in OmegaConf.load(self.overrides_file)]

    def _absent(self, file: Path) -> UserError:
        start = "" if self.occupied else f", or start one with python -m genbench run_dir={self.path}"
        return UserError(
            f"run_dir={self.path} holds no run (no {file.name}). Type the run_dir=PATH of a run{start}."
        )

    def begins(self, typed: Collection[str]) -> bool:
        """Does a run without training begin here, of a model or an experiment among the keys typed?

        Its weights come with it, or from a checkpoint of somebody's.
        """
        return not self.started and not {"model", "experiment"}.isdisjoint(typed)

    def examine(self, config: Mapping[str, Any], grows: bool) -> bool:
        """Whether `config` goes on with the run that lives here (True) or starts one (False).

        Raises UserError, showing the differences, where another configuration lives here, and where the
        directory cannot be written. Nothing is written.
        """
        # A run that never reached a checkpoint has nothing that another configuration could spoil.
        resumed = self.started and any(self.checkpoints.glob("*.json"))
        if resumed:
            refuse_resume(self.config(), config, grows)
        elif not self.started and self.occupied:
            raise UserError(
                f"run_dir={self.path} has files in it but holds no run (no config.yaml). Choose an empty or "
                "new folder."
            )
        place = self.nearest
        if not place.is_dir() or not os.access(place, os.W_OK):
            raise UserError(
                f"run_dir={self.path} cannot be written: {place} is no folder to write to. Choose another."
            )
        return resumed

    @property
    def occupied(self) -> bool:
        """Whether there is anything in it, a run's or not."""
        return self.path.is_dir() and any(self.path.iterdir())

    @property
    def nearest(self) -> Path:
        """The directory, or the nearest one above it that exists."""
        return next(folder for folder in (self.path, *self.path.absolute().parents) if folder.exists())

    def claim(self, config: Mapping[str, Any], overrides: Sequence[str]) -> None:
        """Makes the directory this configuration's, after `examine` had nothing against it."""
        fresh = not any(self.checkpoints.glob("*.json"))
        for folder in (self.path, self.checkpoints, self.samples):
            folder.mkdir(parents=True, exist_ok=True)
        if fresh:
            self.metrics_file.unlink(missing_ok=True)
        _write(self.config_file, OmegaConf.to_yaml(OmegaConf.create(dict(config))))
        _write(self.overrides_file, OmegaConf.to_yaml(OmegaConf.create(anchored(overrides))))


def _write(file: Path, text: str) -> None:
    """`text` into `file`, all or nothing, and only where it says something else."""
    if not file.is_file() or file.read_text(encoding="utf-8") != text:
        replace_file(file, [text.encode()])


def default_run_dir(config: Mapping[str, Any], job: int | None) -> Path:
    """runs/<time>-<dataset>-<model>-seed<seed>, with the job's number inside a multirun."""
    time = datetime.now().strftime("%Y%m%d-%H%M%S")
    number = "" if job is None else f"-{job}"
    name = f"{time}{number}-{config['dataset']['name']}-{config['model']['name']}-seed{config['seed']}"
    first = Path("runs") / name
    # Two runs may begin in one second; the second is another run.
    others = (first.with_name(f"{name}-{again}") for again in count(2))
    return next(path for path in chain([first], others) if not path.exists())
