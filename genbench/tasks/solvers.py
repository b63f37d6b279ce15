"""task=solvers: every sampler on one denoiser: how good its images are for how many evaluations.

Without run_dir the denoiser is an oracle, whose law is known: the measure is the distance from it, and the
report goes to runs/<time>-solvers/. With run_dir it is a trained run: the measure is the run's main metric,
and the report goes to <run_dir>/solvers/. Either way solvers.json, kept up to date while samplers are being
compared, then a table solvers.md and a plot solvers.png. What an earlier comparison of the same weights by
the same code has found is not measured again.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any

from genbench.cli import Typed, composed, recall
from genbench.configuration import SAMPLER_PARTS, config_hash
from genbench.contracts import Sampler, UserError
from genbench.harness import preflight
from genbench.harness.assembly import Assembly, build_sampler, settle_precision
from genbench.harness.conclusion import source_of
from genbench.harness.distributed import Ranks, refuse_ranks, resolve_device
from genbench.harness.durable import replace_file
from genbench.harness.finished import overlay, restore
from genbench.harness.recording import provenance
from genbench.harness.rundir import RunDirectory
from genbench.harness.sampling import Source
from genbench.harness.scoring import build_scoring
from genbench.solvers.judges import Judge, OracleJudge, ScoreJudge, Verdict
from genbench.solvers.report import Effort, Name, Point, plot, table
from genbench.words import key_of

EFFORTS = {"steps": Effort("steps"), "tolerances": Effort("rtol", ("atol",), rising=False)}
"""What is varied of a sampler that has it, by the name of the list in `solvers` that says the amounts."""


def run(config: dict[str, Any], typed: Typed) -> None:
    """Draws, judges and reports; what does not fit the model is named and left out."""
    chosen = [o for o in typed.now if key_of(o).split(".")[0] in ("sampler", *SAMPLER_PARTS)]
    if chosen:
        raise UserError(
            f"{' '.join(chosen)}: task=solvers compares samplers, and settings of a sampler stand beside its "
            f"name: \"solvers.samplers=[heun,'ddim sampler.rule.eta=0.5','dpmpp_2m grid=rho']\"."
        )
    refuse_ranks("solvers")
    comparison = Comparison(config, typed)
    comparison.folder.mkdir(parents=True, exist_ok=True)
    print(f"{comparison.title}: {comparison.judge.samples:,} images a point", flush=True)
    points = comparison.earlier()
    left_out: dict[str, str] = {}
    for entry in config["solvers"]["samplers"]:
        for label, found in comparison.points(entry, points):
            if isinstance(found, Point):
                points[found.name] = found
            else:
                left_out[label] = str(found)
            print(f"  {found}" if isinstance(found, Point) else f"  {label}: left out. {found}", flush=True)
            report = {
                **comparison.facts,
                "points": [asdict(point) for point in points.values()],
                "left_out": left_out,
            }
            replace_file(comparison.report, [f"{json.dumps(report, indent=2, allow_nan=False)}\n".encode()])
    if not points:
        raise UserError("None of these samplers fits this model.")
    found_all = list(points.values())
    (comparison.folder / "solvers.md").write_text(table(found_all), encoding="utf-8")
    picture = plot(found_all, comparison.title, comparison.folder / "solvers.png")
    print(f"\n{table(found_all)}\nwritten to {comparison.report}, drawn in {picture}")


class Comparison:
    """One denoiser, its judge, and samplers composed for it one after the other.

    facts: what the report says beside its points.
    """

    facts: dict[str, Any]

    def __init__(self, config: Mapping[str, Any], typed: Typed) -> None:
        self.typed = typed
        self.solvers = config["solvers"]
        self.device = device = resolve_device(config["device"])
        self.saved: Mapping[str, Any] | None = None
        if config["run_dir"] is None:
            self.folder = _folder(typed)
            self._judge_oracle(Assembly(config, device, Ranks()))
        else:
            directory = RunDirectory(Path(config["run_dir"]))
            self.saved, self.folder = directory.config(), directory.path / "solvers"
            self._judge_run(Assembly(self._config([]), device, Ranks()))

    def _judge_oracle(self, assembly: Assembly) -> None:
        self.model = assembly.generator().eval()
        seed, corruption = assembly.config["metrics"]["seeds"][0], self.model.corruption
        self.judge: Judge = OracleJudge(self.model, self.solvers["images"], seed, assembly.device)
        self.title = f"{assembly.config['model']['title']}, {corruption}"
        self.facts = self._facts(assembly, [*self.typed.overrides], {"model": assembly.config["model"]})

    def _judge_run(self, assembly: Assembly) -> None:
        config = assembly.config
        self.model, trained = restore(config, assembly)
        metrics = config["metrics"]
        scoring, lines = build_scoring(assembly, metrics, self.model.image_shape)
        scoring.refer_to(assembly.images, config["dataset"]["reference"], metrics["batch_size"])
        print("\n".join(lines), end="\n" if lines else "")

        def source(sampler: Sampler, settings: Mapping[str, Any]) -> Source:
            return source_of(assembly, self.model, sampler, settings)

        self.judge = ScoreJudge(source, scoring, metrics["n_samples"], metrics["seeds"][0])
        self.title = f"{config['model']['name']} on {config['dataset']['name']} at step {trained.steps:,}"
        run = {
            "config_hash": config_hash(config),
            "training_seed": config["seed"],
            "steps": trained.steps,
            "weights": "ema" if trained.averaged else "raw",
        }
        self.facts = self._facts(assembly, [*self.typed.now], {"run": run})

    def _facts(self, assembly: Assembly, command: list[str], more: dict[str, Any]) -> dict[str, Any]:
        """What the report says beside its points."""
        return {
            **provenance(command, assembly.device),
            **more,
            "title": self.title,
            "samples": self.judge.samples,
            "seed": assembly.config["metrics"]["seeds"][0],
        }

    @property
    def report(self) -> Path:
        """Where the numbers go."""
        return self.folder / "solvers.json"

    def earlier(self) -> dict[Name, Point]:
        """The points of the report that is there, if the same code found them for the same weights."""
        if not self.report.is_file() or self.facts["git"]["dirty"]:
            return {}
        report = json.loads(self.report.read_text(encoding="utf-8"))
        if any(report.get(key) != self.facts[key] for key in self.facts if key not in ("command", "created")):
            return {}
        points = [Point.read(each) for each in report["points"]]
        return {point.name: point for point in points}

    def points(self, entry: str, known: Mapping[Name, Point]) -> Iterator[tuple[str, Point | UserError]]:
        """A point for every effort of the sampler that `entry` names, or why there is none.

        An entry is a choice of conf/sampler and its settings, separated by spaces; "ddim sampler.steps=10,99"
        says its own amounts. A point that is `known` is not measured again.
        """
        try:
            label, amounts, effort, overrides = self._read(entry)
        except UserError as error:
            yield entry, error
            return
        for amount in amounts:
            told = [*overrides, f"sampler.{effort.key}={amount}"]
            name = label, effort.key, float(amount)
            try:
                verdict = known[name].verdict if name in known else self._judged(told)
                yield label, Point(label, effort, float(amount), verdict)
            except UserError as error:
                yield f"{label} at {effort.key}={amount}", error

    def _read(self, entry: str) -> tuple[str, list[Any], Effort, list[str]]:
        name, *settings = entry.split()
        for setting in settings:
            if "=" not in setting or key_of(setting).split(".")[0] not in ("sampler", *SAMPLER_PARTS):
                raise UserError(
                    f"{setting} is no setting of a sampler, such as sampler.rule.eta=0.5 or grid=rho."
                )
        node = self._config([f"sampler={name}"])["sampler"]
        listed = next((name for name, effort in EFFORTS.items() if effort.key in node), None)
        if listed is None:
            varied = " nor ".join(f"sampler.{effort.key}" for effort in EFFORTS.values())
            raise UserError(f"sampler={name} has neither {varied} to be varied.")
        effort = EFFORTS[listed]
        own = [setting for setting in settings if key_of(setting) == f"sampler.{effort.key}"]
        fixed = [setting for setting in settings if setting not in own]
        label = " ".join([name, *fixed])
        keys = {key_of(setting) for setting in fixed}
        following = [key for key in effort.followers if f"sampler.{key}" not in keys]
        follow = [f"sampler.{key}=${{sampler.{effort.key}}}" for key in following]
        amounts = own[-1].split("=", 1)[1].split(",") if own else list(self.solvers[listed])
        return label, amounts, effort, [f"sampler={name}", *fixed, *follow]

    def _judged(self, overrides: list[str]) -> Verdict:
        config = settle_precision(self._config(overrides), self.device)["sampler"]
        sampler = build_sampler(config)
        preflight.check_sampler(sampler, self.model, config["name"])
        verdict = self.judge(sampler, config)
        if not math.isfinite(verdict.value):
            raise UserError(f"its {verdict.measure} is not a number: the images are not finite.")
        return verdict

    def _config(self, sampler: list[str]) -> dict[str, Any]:
        """The configuration with these overrides of the sampler laid over what was typed."""
        config = composed([*recall(self.typed.overrides, sampler), *sampler], sampler)
        if self.saved is None:
            return config
        return overlay(self.saved, config, [key_of(o) for o in [*self.typed.now, *sampler]])


def _folder(typed: Typed) -> Path:
    number = "" if typed.job is None else f"-{typed.job}"
    return Path("runs") / f"{datetime.now():%Y%m%d-%H%M%S}{number}-solvers"
