"""task=solvers: every sampler on one denoiser: how good its images are for how many evaluations.

Without run_dir the denoiser is an oracle, whose law is known: the measure is the distance from it, and the
report goes to runs/solvers/. With run_dir it is a trained run: the measure is the run's main metric, and
the report goes to <run_dir>/solvers/. Either way solvers.json, a table solvers.md and a plot solvers.png.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from genbench.cli import Typed, composed, key_of, recall
from genbench.contracts import UserError
from genbench.harness import preflight
from genbench.harness.assembly import Assembly
from genbench.harness.distributed import Ranks, refuse_ranks, resolve_device
from genbench.harness.finished import overlay, restore
from genbench.harness.recording import provenance
from genbench.harness.rundir import RunDirectory
from genbench.harness.scoring import build_scoring
from genbench.solvers.judges import Judge, OracleJudge, ScoreJudge
from genbench.solvers.report import Point, plot, table

EFFORTS = {"steps": ("steps", ["sampler.steps"]), "rtol": ("tolerances", ["sampler.rtol", "sampler.atol"])}
"""What is varied of a sampler that has it: the list of values in `solvers`, and the keys they go to."""


def run(config: dict[str, Any], typed: Typed) -> None:
    """Draws, judges and reports; samplers that do not fit the model are named and left out."""
    if chosen := [override for override in typed.now if key_of(override).startswith("sampler")]:
        raise UserError(
            f"{' '.join(chosen)}: task=solvers compares samplers and is told which by "
            "solvers.samplers=[heun,ddim]. An entry may set more: ['ddim sampler.rule.eta=0.5',heun]."
        )
    refuse_ranks("solvers")
    if config["run_dir"] is None:
        saved, folder = None, Path("runs/solvers")
    else:
        directory = RunDirectory(Path(config["run_dir"]))
        saved, folder = directory.config(), directory.path / "solvers"
    comparison = Comparison(saved, typed)
    print(f"{comparison.title}: {comparison.judge.samples:,} images a point")
    points, left_out = [], {}
    for entry in config["solvers"]["samplers"]:
        try:
            for point in comparison.points(entry):
                points.append(point)
                print(f"  {point}", flush=True)
        except UserError as error:
            left_out[entry] = str(error)
            print(f"  {entry}: left out. {error}", flush=True)
    if not points:
        raise UserError("None of these samplers fits this model.")
    folder.mkdir(parents=True, exist_ok=True)
    floor = comparison.judge.floor
    report = {
        **provenance(typed.overrides, comparison.assembly.device),
        "title": comparison.title,
        "samples": comparison.judge.samples,
        "floor": floor,
        "points": [asdict(point) for point in points],
        "left_out": left_out,
    }
    (folder / "solvers.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    (folder / "solvers.md").write_text(table(points, floor), encoding="utf-8")
    picture = plot(points, floor, comparison.title, folder / "solvers.png")
    print(f"\n{table(points, floor)}\nwritten to {folder / 'solvers.json'}, drawn in {picture}")


class Comparison:
    """One denoiser, its judge, and samplers composed for it one after the other.

    saved: the resolved configuration of a trained run, or None for an oracle.
    """

    def __init__(self, saved: Mapping[str, Any] | None, typed: Typed) -> None:
        self.saved, self.typed = saved, typed
        config = self._config([])
        self.assembly = Assembly(config, resolve_device(config["device"]), Ranks())
        self.judge: Judge
        if saved is None:
            self.model = self.assembly.generator().eval()
            self.judge = OracleJudge(self.model, config["solvers"]["images"], self.assembly.device)
            self.title = f"{config['model']['title']}, {_schedule(config)}"
            return
        self.model, trained = restore(config, self.assembly)
        metrics = config["metrics"]
        scoring, lines = build_scoring(self.assembly, metrics, self.model.image_shape)
        scoring.refer_to(self.assembly.images(config["dataset"]["reference"]), metrics["batch_size"])
        print("\n".join(lines), end="\n" if lines else "")
        self.judge = ScoreJudge(self.model, scoring, metrics["n_samples"])
        self.title = f"{config['model']['name']} on {config['dataset']['name']} at step {trained.steps:,}"

    def points(self, entry: str) -> Iterator[Point]:
        """Every effort of the sampler that `entry` names: a choice of conf/sampler and settings after it.

        Settings are separated by spaces; "ancestral sampler.steps=10,1000" lists its own efforts. Raises
        UserError where the sampler does not exist or does not fit the model.
        """
        name, *settings = entry.split()
        listed = {key_of(setting): setting.split("=", 1)[1].split(",") for setting in settings}
        node = self._config([f"sampler={name}"])["sampler"]
        effort = next((key for key in EFFORTS if key in node), None)
        if effort is None:
            raise UserError(f"sampler={name} has neither of {', '.join(EFFORTS)} to be varied.")
        setting, keys = EFFORTS[effort]
        fixed = [each for each in settings if key_of(each) not in keys]
        for value in listed.get(keys[0], self.assembly.config["solvers"][setting]):
            config = self._config([f"sampler={name}", *fixed, *(f"{key}={value}" for key in keys)])
            assembly = Assembly(config, self.assembly.device, self.assembly.ranks)
            sampler = assembly.sampler()
            preflight.check_sampler(sampler, self.model, name)
            yield Point(" ".join([name, *fixed]), keys[0], float(value), self.judge(sampler, assembly))

    def _config(self, sampler: list[str]) -> dict[str, Any]:
        """The configuration with these overrides of the sampler laid over what was typed."""
        config = composed([*recall(self.typed.overrides, sampler), *sampler])
        if self.saved is None:
            return config
        return overlay(self.saved, config, [key_of(o) for o in [*self.typed.now, *sampler]])


def _schedule(config: Mapping[str, Any]) -> str:
    """What the corruption of an oracle is called in conf/."""
    return str(config["model"]["corruption"]["schedule"]["_target_"]).rpartition(".")[-1]
