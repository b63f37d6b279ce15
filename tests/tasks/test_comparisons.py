"""task=solvers from the command line, on an oracle and on a trained run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from command_line import genbench

FEW = ["solvers.images=400", "device=cpu"]


def report(folder: Path) -> dict:
    (found,) = folder.rglob("solvers.json")
    return json.loads(found.read_text())


def compared(folder: Path) -> dict[tuple[str, float], dict]:
    return {(point["sampler"], point["amount"]): point["verdict"] for point in report(folder)["points"]}


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_samplers_are_compared_on_an_oracle(tmp_path):
    entries = (
        "[heun,'ddim sampler.rule.eta=0.5 sampler.steps=4,40',analytic,rk45,nosuch,decode,'ddim schedule=su']"
    )
    told = ["solvers.steps=[3,12]", "solvers.tolerances=[1e-3]", f"solvers.samplers={entries}"]
    said = genbench("task=solvers", *FEW, *told).stdout
    found, written = compared(tmp_path / "runs"), report(tmp_path / "runs")
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
    assert found["rk45", 1e-3]["value"] < 3 * found["rk45", 1e-3]["floor"]
    assert set(written["left_out"]) == {"nosuch", "decode", "ddim schedule=su"}
    assert "there is no sampler=nosuch" in said
    assert "| `heun` |" in said
    assert (next((tmp_path / "runs").iterdir()) / "solvers.png").is_file()


def test_other_corruptions_and_grids_are_other_results(tmp_path):
    entries = "solvers.samplers=[ddim,'ddim grid=quadratic']"
    for place, corruption in (("vp", []), ("ve", ["corruption=ve"])):
        (tmp_path / place).mkdir()
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(tmp_path / place)
            genbench("task=solvers", *FEW, *corruption, entries, "solvers.steps=[5]")
    values = [v["value"] for place in ("vp", "ve") for v in compared(tmp_path / place).values()]
    assert len(set(values)) == 4
    assert "VE up to 100" in report(tmp_path / "ve")["title"]


def test_an_effort_that_does_not_fit_is_left_out_alone(tmp_path):
    genbench(
        "task=solvers", *FEW, "corruption=levels", "solvers.samplers=[ddim]", "solvers.steps=[20,5]"
    )  # of 10 levels
    assert set(compared(tmp_path)) == {("ddim", 5.0)}
    assert set(report(tmp_path)["left_out"]) == {"ddim at steps=20"}


def test_a_start_without_any_data_is_refused_where_a_sampler_cannot_take_it(tmp_path):
    entries = "solvers.samplers=[euler_maruyama,'euler_maruyama grid.start=0.999',euler]"
    genbench("task=solvers", *FEW, "corruption=flow", entries, "solvers.steps=[5]")
    assert set(compared(tmp_path)) == {("euler_maruyama grid.start=0.999", 5.0), ("euler", 5.0)}
    assert "Type grid.start" in report(tmp_path)["left_out"]["euler_maruyama at steps=5"]


def test_samplers_are_compared_on_a_trained_run(tmp_path):
    small = ["network.channels=8", "network.multipliers=[1]", "network.blocks=1", "network.attention=[]"]
    small += ["trainer.steps=2", "trainer.batch_size=8", "metrics.n_samples=24", "logger=none", "device=cpu"]
    run = tmp_path / "run"
    genbench(*small, "sampler=heun", "sampler.steps=2", f"run_dir={run}")
    few = ["solvers.samplers=[ancestral,heun]", "solvers.steps=[2]"]
    genbench("task=solvers", f"run_dir={run}", *few)
    found, written = compared(run / "solvers"), report(run / "solvers")
    nfe = {key: verdict["nfe_mean"] for key, verdict in found.items()}
    assert nfe == {("ancestral", 2.0): 2, ("heun", 2.0): 3}
    record = json.loads((run / "result.json").read_text())
    assert found["heun", 2.0]["measure"] == record["metrics"][0]["name"] == "fd_digits@24"
    assert found["heun", 2.0]["value"] == pytest.approx(record["metrics"][0]["value"], rel=1e-6)
    assert found["heun", 2.0]["floor"] is None  # the card's is of 2,000 samples
    assert written["run"]["steps"] == 2
    assert written["command"][3:] == ["task=solvers", f"run_dir={run}", *few]


def test_a_sweep_of_a_finished_run_starts(tmp_path):
    genbench("-m", "task=solvers", *FEW, "solvers.samplers=[ddim]", "solvers.steps=[2]", "schedule=linear,su")
    assert len(list((tmp_path / "runs").glob("*-solvers/solvers.json"))) == 2


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        (["sampler=heun"], "solvers.samplers=[heun,'ddim"),
        (["grid=quadratic"], "solvers.samplers=[heun,'ddim"),
        (["model=ddpm", "dataset=digits"], "knows no law"),
        (["solvers.samplers=[decode]"], "None of these samplers fits"),
        (["run_dir=nowhere"], "holds no run"),
        (["solvers.steps=5"], "a list, [...], of which each is a whole number from 1 up"),
        (["solvers.samplers=ddim"], "a list, [...], of which each is text"),
        (["solvers.images=0"], "a whole number from 1 up"),
    ],
)
def test_what_cannot_be_compared_is_refused(typed, said):
    refused = genbench("task=solvers", *FEW, *typed, check=False)
    assert refused.returncode == 2
    assert said in refused.stderr


def test_an_oracle_is_not_trained():
    refused = genbench("model=oracle", "dataset=digits", "logger=none", "device=cpu", check=False)
    assert refused.returncode == 2
    assert "task=solvers" in refused.stderr


def test_what_is_known_of_the_same_weights_is_not_measured_again(tmp_path, monkeypatch):
    """As after an interruption; a folder of an oracle is named by the second, which stands still here."""
    from genbench.harness import recording
    from genbench.leaderboard.record import Git
    from genbench.tasks import solvers

    monkeypatch.setattr(recording, "git_state", lambda: Git(commit="0" * 40, dirty=False))
    monkeypatch.setattr(solvers, "_folder", lambda typed: tmp_path / "here")
    few = ["task=solvers", *FEW, "solvers.steps=[3]"]
    genbench(*few, "solvers.samplers=[ddim]")
    first = report(tmp_path / "here")["points"]
    genbench(*few, "solvers.samplers=[heun,ddim]")
    second = report(tmp_path / "here")["points"]
    assert second[0] == first[0]  # to the microsecond
    assert [point["sampler"] for point in second] == ["ddim", "heun"]
    genbench(*few, "solvers.samplers=[ddim]", "corruption=ve")
    assert [point["sampler"] for point in report(tmp_path / "here")["points"]] == ["ddim"]
