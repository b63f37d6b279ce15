"""The README's own generator, divergence and corruption, run as they stand there."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from documents import Page

from genbench.corruptions.condition import check_star
from genbench.corruptions.rules import Mixed
from genbench.leaderboard.record import Result

README = Page("README.md")


def run(command: str, folder: Path, *shorter: str) -> Result:
    """What the README says to type, in a folder with the README's files, made shorter and quieter."""
    for name, contents in README.files().items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(contents, encoding="utf-8")
    command = command.replace("python -m genbench", f"{sys.executable} -m genbench")
    command = " ".join([command, "logger=none device=cpu run_dir=run metrics.n_samples=500", *shorter])
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    finished = subprocess.run(
        command, shell=True, cwd=folder, capture_output=True, text=True, env=environment
    )
    assert finished.returncode == 0, finished.stdout + finished.stderr
    return Result.read(folder / "run" / "result.json")


def test_examples_stay_short():
    files = README.files()
    own = {"mygen.py", "myconf/model/mmd.yaml", "mydiv.py", "mycurtain.py", "myconf/corruption/curtain.yaml"}
    assert set(files) == own
    assert files["mygen.py"].count("\n") <= 40
    assert files["mydiv.py"].count("\n") <= 12
    assert files["mycurtain.py"].count("\n") <= 13
    assert len(README.runs()) == 3


@pytest.mark.parametrize("model", ["mmd", "fgan"])
def test_the_readmes_examples_train_sample_and_are_recorded(model, tmp_path):
    (command,) = [found for found in README.runs() if f"model={model}" in found]
    # Without its last number of steps a command keeps the recipe's, so the shorter one is typed last.
    command = re.sub(r" trainer\.steps=\d+", "", command)
    result = run(command, tmp_path, "trainer.steps=300" if model == "mmd" else "trainer.steps=100")
    assert (result.model.name, result.sampling.sampler, result.sampling.nfe_max) == (model, "decode", 1)
    # Untrained decoders of these sizes stand far above 20; a hundred steps must show.
    assert result.metrics[0].value < 20


def test_the_readmes_corruption_trains_and_obeys_the_condition(tmp_path):
    (command,) = [found for found in README.runs() if "model=udm" in found]
    result = run(command, tmp_path, "trainer.steps=100", "sampler.steps=20", "network.channels=16")
    assert (result.model.name, result.sampling.nfe_max) == ("udm", 20)
    assert result.metrics[0].value < 20
    namespace: dict[str, Any] = {}
    exec(README.files()["mycurtain.py"], namespace)
    image = torch.linspace(-1, 1, 16).reshape(1, 4, 4)
    for rule in (Mixed(0.0), Mixed(0.5), Mixed(1.0)):
        assert check_star(namespace["Curtain"](noise=0.1), rule, image, 0.3, 0.8, draws=4000).holds
