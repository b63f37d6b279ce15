"""task=solvers from the command line, on an oracle and on a trained run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from command_line import genbench

FEW = ["solvers.images=400", "device=cpu"]


def compared(folder: Path) -> dict[tuple[str, float], dict]:
    report = json.loads((folder / "solvers.json").read_text())
    return {(point["sampler"], point["effort"]): point["verdict"] for point in report["points"]}


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_samplers_are_compared_on_an_oracle(tmp_path):
    samplers = "[heun,'ddim sampler.rule.eta=0.5 sampler.steps=4,40',analytic,rk45,nosuch,decode]"
    said = genbench(
        "task=solvers",
        *FEW,
        f"solvers.samplers={samplers}",
        "solvers.steps=[3,12]",
        "solvers.tolerances=[1e-3]",
    ).stdout
    folder = tmp_path / "runs" / "solvers"
    found = compared(folder)
    assert set(found) == {
        ("heun", 3.0),
        ("heun", 12.0),
        ("ddim sampler.rule.eta=0.5", 4.0),
        ("ddim sampler.rule.eta=0.5", 40.0),
        ("analytic", 3.0),
        ("analytic", 12.0),
        ("rk45", 1e-3),
    }
    assert found["heun", 12.0]["nfe_mean"] == 23
    assert found["heun", 12.0]["value"] < found["heun", 3.0]["value"]
    report = json.loads((folder / "solvers.json").read_text())
    assert found["rk45", 1e-3]["value"] < 3 * report["floor"]
    assert set(report["left_out"]) == {"nosuch", "decode"}
    assert "Could not find 'sampler/nosuch'" in said
    assert "| `heun` |" in said
    assert (folder / "solvers.png").is_file()


def test_other_corruptions_are_chosen_as_for_a_model():
    said = genbench(
        "task=solvers", *FEW, "corruption=ve", "solvers.samplers=[ddim]", "solvers.steps=[5]"
    ).stdout
    assert "VE" in said


def test_samplers_are_compared_on_a_trained_run(tmp_path):
    small = ["network.channels=8", "network.multipliers=[1]", "network.blocks=1", "network.attention=[]"]
    small += ["trainer.steps=2", "trainer.batch_size=8", "metrics.n_samples=24", "logger=none", "device=cpu"]
    genbench(*small, "sampler=heun", "sampler.steps=2", f"run_dir={tmp_path / 'run'}")
    genbench(
        "task=solvers",
        f"run_dir={tmp_path / 'run'}",
        "solvers.samplers=[ancestral,heun]",
        "solvers.steps=[2]",
    )
    found = compared(tmp_path / "run" / "solvers")
    assert {key: verdict["nfe_mean"] for key, verdict in found.items()} == {
        ("ancestral", 2.0): 2,
        ("heun", 2.0): 3,
    }
    recorded = json.loads((tmp_path / "run" / "result.json").read_text())["metrics"][0]
    assert found["heun", 2.0]["measure"] == recorded["name"] == "fd_digits@24"
    assert found["heun", 2.0]["value"] == pytest.approx(recorded["value"], rel=1e-6)


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        (["sampler=heun"], "solvers.samplers=[heun,ddim]"),
        (["model=ddpm"], "knows no law"),
        (["solvers.samplers=[decode]"], "None of these samplers fits"),
        (["run_dir=nowhere"], "holds no run"),
    ],
)
def test_what_cannot_be_compared_is_refused(typed, said):
    refused = genbench("task=solvers", *FEW, *typed, check=False)
    assert refused.returncode == 2
    assert said in refused.stderr
