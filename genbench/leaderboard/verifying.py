"""Are a submission's images those of a checkpoint? They are drawn again, number by number, and compared.

Image i depends on (evaluation seed, i) alone, so the images that a submission holds can be drawn without the
others. Noise is the same bit for bit on every device; arithmetic is not. Fixed-step sampling in float32 keeps
to one grey level, categorical pixels are equal but for a hundredth; so images agree where

    19 of 20 lie within one grey level everywhere,  or  99 of 100 pixels are equal

(a hundredth of the pixels anywhere would not do for the first: weights of another training seed, six steps
old, put 98 % of the pixels within a level, and 21 of 64 images). Asked to, all samples are drawn again and
scored anew.

Nothing that a submitter wrote is instantiated. The recorded command, if it can only choose what this
installation's conf/ offers, and set, is composed again, must give the recorded configuration's hash, and may
name no other code than conf/ does; weights are read from safetensors into the model that this configuration
makes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from torch import Tensor

from genbench import __version__
from genbench.cli import composed, register_resolvers
from genbench.configuration import SHOWN, conf_dir, config_hash, differences
from genbench.errors import UserError, printable
from genbench.harness.assembly import Assembly, settle_precision
from genbench.harness.checkpoint import Checkpoint
from genbench.harness.conclusion import source_of
from genbench.harness.distributed import Ranks, resolve_device
from genbench.harness.finished import restore
from genbench.harness.recording import device_name, git_state
from genbench.harness.rundir import RunDirectory
from genbench.harness.sampling import Source
from genbench.harness.scoring import build_scoring
from genbench.help import choices
from genbench.leaderboard.checking import check
from genbench.leaderboard.evidence import from_bytes
from genbench.leaderboard.record import Result, parse, today
from genbench.leaderboard.reproducing import safe
from genbench.leaderboard.reviewing import reviewer_objections
from genbench.leaderboard.rules import Rules, shipped_rules
from genbench.leaderboard.submission import SUBMISSION, evidence_file, read_entry
from genbench.leaderboard.untrusted import EVIDENCE_LIMIT, RECORD_LIMIT, read_bytes, sha256
from genbench.leaderboard.verified import VERIFIED, Review, Score, Verification, allowed, scored
from genbench.precisions import settled_as


def verify(
    submission: Path,
    runs: Sequence[str],
    *,
    scores: bool = False,
    device: str = "auto",
    data_root: Path | None = None,
    by: str | None = None,
    note: str | None = None,
    rules: Rules | None = None,
) -> Iterator[Verification]:
    """One verdict for each of `runs`, as soon as it is.

    runs: run directories or checkpoint files of the submission's training seeds, as PATH or SEED=PATH.
    scores: whether all samples are drawn and scored again too; by, note: who means to leave a review, and a
    line of theirs. Raises UserError where `check` finds something, such a review would not be recorded, a run
    is not of the submission, the recorded command does not give the recorded configuration here, or there is
    nothing to compare.
    """
    rules = shipped_rules() if rules is None else rules
    for problem in check(submission, rules):
        raise UserError(f"the submission is not in order: {problem}")
    entry = read_entry(submission)
    results = {result.training.seed: result for result in entry.results}
    chosen = [_find(run, results) for run in runs]
    if by is not None:
        seeds = [seed for seed, _ in chosen]
        for line in reviewer_objections(by, note, seeds, git_state(), entry):
            raise UserError(
                f"a review by {printable(by)[:100]} would not be recorded: {line}. "
                "Without --by nothing is written"
            )
    for seed, checkpoint in chosen:
        result = results[seed]
        path = submission / evidence_file(seed)
        if not path.exists():
            raise UserError(
                f"{path} is missing: the submission holds no images of seed {seed} to compare with"
            )
        held = from_bytes(read_bytes(path, EVIDENCE_LIMIT), path, result, rules)
        place = {"device": device, "checkpoint": str(checkpoint), "run_dir": str(checkpoint.parent)}
        config = {**recompose(result), **place}
        if data_root is not None:
            config["data_root"] = str(data_root)
        yield _verify(result, torch.from_numpy(held.images.copy()), config, scores)


def review(
    submission: Path, found: Sequence[Verification], by: str, note: str | None, device: str = "auto"
) -> Review:
    """What `by` is about to say of a submission, after `verify` on this `device`."""
    used = resolve_device(device)
    value = {
        "by": by,
        "date": today(),
        "note": note,
        "submission": sha256(read_bytes(submission / SUBMISSION, RECORD_LIMIT)),
        "seeds": [one.model_dump() for one in sorted(found, key=lambda one: one.seed)],
        "genbench_version": __version__,
        "git": git_state().model_dump(),
        "device": {"name": device_name(used), "type": used.type, "count": 1},
    }
    return parse(Review, value, Path(VERIFIED))


def recompose(result: Result) -> dict[str, Any]:
    """The recorded configuration, made anew from this installation's conf/ and the recorded command.

    A precision left to the device is what the record's device took. Raises UserError where the command could
    do more than choose and set, names code that conf/ does not, or gives another configuration.
    """
    if unsafe := [override for override in result.command if not safe(override)]:
        raise UserError(
            f"the recorded command has {unsafe[0]!r}, which could name code; nothing of it was run"
        )
    folder = conf_dir()
    if foreign := [override for override in result.command if not _offered(override, choices(folder))]:
        raise UserError(
            f"the recorded command has {foreign[0]!r}, which {folder} does not offer; nothing of it was run"
        )
    typed = [*result.command, f"seed={result.training.seed}"]
    register_resolvers()
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(folder), version_base="1.3"):
        config = settled_as(composed(list(dict.fromkeys(typed))), result.config)
    if strange := sorted(set(_targets(config)) - _known_targets(folder)):
        raise UserError(
            f"the recorded command gives a configuration that names {strange[0]}, which {folder} does not; "
            "nothing of it was run"
        )
    if config_hash(config) != result.config_hash:
        lines = differences(result.config, config)
        commit = result.git.commit
        advice = f" Where that commit has `verify` itself, type: git checkout {commit}" if commit else ""
        raise UserError(
            f"here the recorded command gives the configuration {config_hash(config)[:SHOWN]}, recorded is "
            f"{result.config_hash[:SHOWN]} ({'; '.join(lines[:3]) or 'values are equal'}).{advice}"
        )
    return config


def _offered(override: str, groups: Mapping[str, Sequence[str]]) -> bool:
    """Whether an override sets a value, or chooses of a group only what conf/ has in it, or nothing."""
    key, _, value = override.lstrip("+").partition("=")
    group, *inner = key.partition("@")[0].split("/")
    if group not in groups:
        return not inner
    names = value.removeprefix("[").removesuffix("]").split(",")
    return value in ("null", "[]") or all("/".join([*inner, name]) in groups[group] for name in names)


def _targets(config: Any) -> Iterator[str]:
    """What a configuration would make: every `_target_` in it, at any depth."""
    if isinstance(config, Mapping):
        if (target := config.get("_target_")) is not None:
            yield str(target)
        config = list(config.values())
    if isinstance(config, list):
        for inner in config:
            yield from _targets(inner)


def _known_targets(folder: Path) -> set[str]:
    """What the files of conf/ name. A prefix would not do: genbench.cli.os.system is os.system."""
    texts = (file.read_text(encoding="utf-8") for file in folder.rglob("*.yaml"))
    return {name for text in texts for name in re.findall(r"_target_: *([\w.]+)", text)}


def _find(run: str, results: Mapping[int, Result]) -> tuple[int, Path]:
    """The training seed that a run is of, and its checkpoint file."""
    first, equals, rest = run.partition("=")
    said, path = (int(first), Path(rest)) if equals and first.isdecimal() else (None, Path(run))
    seals = sorted(RunDirectory(path).checkpoints.glob("step-*.json")) if path.is_dir() else [path]
    seals = [seal.with_name(f"{seal.name.split('.')[0]}.json") for seal in seals]
    for seed, result in results.items():
        if said not in (None, seed):
            continue
        for seal in seals:
            try:
                checkpoint = Checkpoint.from_json(seal)
            except (OSError, ValueError) as error:
                raise UserError(f"{seal} cannot be read ({error}); expected a run or a checkpoint") from error
            known = said is not None or checkpoint.config_hash == result.config_hash
            if known and checkpoint.step == result.training.steps:
                return seed, seal
    wanted = ", ".join(f"seed {seed} at step {r.training.steps}" for seed, r in results.items())
    raise UserError(
        f"{path} has no checkpoint of this submission ({wanted}). Where it was trained under another "
        f"configuration and evaluated under this one, say of which seed it is: SEED={path}"
    )


def _verify(result: Result, held: Tensor, config: dict[str, Any], scores: bool) -> Verification:
    device = resolve_device(config["device"])
    assembly = Assembly(settle_precision(config, device), device, Ranks())
    generator, trained = restore(config, assembly)
    for what, found, recorded in (
        ("steps", trained.steps, result.training.steps),
        ("images_seen", trained.images_seen, result.training.images_seen),
        ("weights", "ema" if trained.averaged else "raw", result.weights),
    ):
        if found != recorded:
            raise UserError(f"{config['checkpoint']}: {what} is {found}, recorded is {recorded}")
    source = source_of(assembly, generator, assembly.sampler())
    drawn = torch.cat([part.images.cpu() for part in source.draw(len(held), result.sampling.seeds[0])])
    found_scores = list(_scores(result, config, assembly, source)) if scores else []
    return compare(result.training.seed, held, drawn.permute(0, 2, 3, 1), found_scores)


def compare(seed: int, held: Tensor, drawn: Tensor, scores: Sequence[Score] = ()) -> Verification:
    """Images uint8 [K, H, W, C] as submitted and as drawn again."""
    apart = (held.int() - drawn.int()).abs()
    largest = apart.flatten(1).amax(dim=1)
    return Verification(
        seed=seed,
        images=len(held),
        sha256=sha256(held.numpy().tobytes()),
        identical=int((largest == 0).sum()),
        near=int((largest <= 1).sum()),
        equal=float((apart == 0).double().mean()),
        largest=int(largest.max()),
        scores=list(scores),
    )


def _scores(result: Result, config: Mapping[str, Any], assembly: Assembly, source: Source) -> Iterator[Score]:
    """The metrics of all samples, drawn again; those of no extractor (likelihoods) are left out."""
    scoring, _ = build_scoring(assembly, config["metrics"], source.model.image_shape)
    scoring.refer_to(assembly.images, config["dataset"]["reference"], config["metrics"]["batch_size"])
    drawn = scoring.score(source, result.sampling.n_samples, result.sampling.seeds)
    values = {metric.name: metric for metric in drawn.metrics}
    for metric in scored(result):
        again = values.get(metric.name)
        if again is None or again.extractor_sha256 != metric.extractor_sha256:
            raise UserError(f"{metric.name} cannot be computed here with the recorded extractor")
        yield Score(name=metric.name, recorded=metric.value, found=again.value, allowed=allowed(metric))


def describe(found: Verification) -> str:
    """A verification in a few lines."""
    lines = [
        f"{'agrees   ' if found.agrees else 'DISAGREES'} seed {found.seed}: of {found.images} images "
        f"{found.identical} are identical, {found.near} within a grey level; "
        f"{found.equal:.2%} of pixels are equal, the largest difference is {found.largest}"
    ]
    for score in found.scores:
        verdict = "" if score.agrees else f"  DISAGREES: within {score.allowed:.2g} was expected"
        lines.append(f"  {score.name:<22} recorded {score.recorded:.6g}, again {score.found:.6g}{verdict}")
    return "\n".join(lines)
