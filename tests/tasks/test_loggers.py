"""Whole runs told elsewhere: what mirrors have of a run killed in training is metrics.jsonl, no more."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import segments
from command_line import environment, genbench

STEPS = 40
RUN = [
    "device=cpu",
    f"trainer.steps={STEPS}",
    "trainer.batch_size=64",
    "trainer.log_every=1",
    "trainer.checkpoint_every=5",
    "trainer.evaluate_every=20",
    "trainer.evaluate_samples=20",
    "network.channels=16",
    "sampler.steps=2",
    "metrics.n_samples=24",
]
OFFLINE = ["logger.mode=offline", "+logger.settings={x_disable_stats:true,x_disable_meta:true}"]


def lines(folder: Path) -> list[dict[str, Any]]:
    path = folder / "metrics.jsonl"
    text = path.read_text().splitlines() if path.is_file() else []
    return [json.loads(line) for line in text if line.endswith("}")]


def killed(folder: Path, *typed: str) -> None:
    """A sitting that dies once it has left a checkpoint behind and gone on."""
    # A W&B service of its own, which dies with it; it would find this process's through the environment.
    environ = {name: value for name, value in environment().items() if name != "WANDB_SERVICE"}
    command = [sys.executable, "-m", "genbench", *RUN, *typed, f"run_dir={folder}"]
    process = subprocess.Popen(
        command, env=environ, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    while process.poll() is None and len(lines(folder)) < 12:
        time.sleep(0.002)
    os.killpg(process.pid, signal.SIGKILL)
    assert process.wait(60) == -signal.SIGKILL
    assert 12 <= max(line["step"] for line in lines(folder)) < STEPS


def by_step(rows: list[dict[str, Any]]) -> dict[int, dict[str, Any]]:
    """W&B has one row for a step; later values of a name replace earlier ones."""
    merged: dict[int, dict[str, Any]] = {}
    for row in rows:
        merged.setdefault(row["step"], {}).update(row)
    return merged


@pytest.mark.slow
def test_w_and_b_has_the_whole_of_a_run_that_was_killed_in_training(tmp_path: Path) -> None:
    folder = tmp_path / "a"
    killed(folder, *OFFLINE)
    identifier = (folder / "wandb_id").read_text()
    genbench(*RUN, *OFFLINE, "logger.checkpoints=true", "logger.samples=true", f"run_dir={folder}")
    assert (folder / "wandb_id").read_text() == identifier

    (segment,) = (folder / "wandb").glob("offline-run-*")  # what the killed sitting left is set aside
    assert len(list((folder / "wandb").glob("unfinished-offline-run-*"))) == 1
    records = segments.inspect(segment)
    (run,) = (record["run"] for record in records if record["type"] == "run")
    assert (run["run_id"], run["job_type"], run["tags"]) == (identifier, "train", ["ddpm", "digits"])

    trained = [line["step"] for line in lines(folder) if "denoiser/loss" in line]
    assert trained == list(range(1, STEPS + 1))  # none twice, none lost
    sent = by_step(segments.histories(records))
    pictures = {name for row in sent.values() for name in row if name.startswith("samples")}
    assert pictures
    told = {step: {n: v for n, v in row.items() if n not in pictures} for step, row in sent.items()}
    assert told == by_step(lines(folder))

    summary = segments.summary(records)
    result = json.loads((folder / "result.json").read_text())
    for metric in result["metrics"]:
        assert summary[f"eval/{metric['name']}"] == metric["value"]
    on_the_way = [line for line in lines(folder) if "eval/fd_digits@20" in line]
    assert summary["eval/fd_digits@20"] == {"min": min(line["eval/fd_digits@20"] for line in on_the_way)}
    assert "max" in summary["eval/is_digits@20"]

    kept = [record["artifact"] for record in records if record["type"] == "artifact"]
    # The newest comes last, and takes the alias "latest" that W&B gives every version as it comes.
    assert [artifact["type"] for artifact in kept] == ["checkpoint", "checkpoint", "result", "samples"]
    assert ["best" in artifact["aliases"] for artifact in kept] == [True, False, False, False]
    assert all("latest" in artifact["aliases"] for artifact in kept[1:])
    files = [[Path(file["local_path"]) for file in artifact["manifest"]["contents"]] for artifact in kept]
    assert all(path.is_absolute() and path.is_file() for paths in files for path in paths)
    assert [path.name for path in files[0]] == ["step-00000020.json", "step-00000020.safetensors"]
    assert [path.name for path in files[1]] == [f"step-{STEPS:08d}.json", f"step-{STEPS:08d}.safetensors"]
    assert {"result.json", "config.yaml", "grid.png"} <= {path.name for path in files[2]}
    assert [path.name for path in files[3]] == ["samples.npz"]


@pytest.mark.slow
def test_a_csv_has_the_whole_of_a_run_that_was_killed_in_training(tmp_path: Path) -> None:
    folder = tmp_path / "a"
    killed(folder, "logger=csv")
    genbench(*RUN, "logger=csv", f"run_dir={folder}")
    with (folder / "metrics.csv").open(newline="") as file:
        read = [{name: float(cell) for name, cell in row.items() if cell} for row in csv.DictReader(file)]
    assert read == lines(folder)
    assert [line["step"] for line in lines(folder) if "denoiser/loss" in line] == list(range(1, STEPS + 1))


def test_checkpoints_stay_where_they_are_unless_asked_for(tmp_path: Path) -> None:
    few = [typed for typed in RUN if not typed.startswith(("trainer.steps", "trainer.evaluate"))]
    genbench(*few, "trainer.steps=2", *OFFLINE, f"run_dir={tmp_path / 'a'}")
    (segment,) = (tmp_path / "a" / "wandb").glob("offline-run-*")
    kept = [record["artifact"] for record in segments.inspect(segment) if record["type"] == "artifact"]
    assert [artifact["type"] for artifact in kept] == ["result"]
