"""Names that do not exist, words in the wrong place, readers that leave: one plain line, or none."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from command_line import environment, genbench

from genbench import cli
from genbench.errors import UserError
from genbench.harness.assembly import build
from genbench.misspelt import near
from genbench.searchpath import anchored
from genbench.unread import STATUS


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        (
            "model=dppm",
            "there is no model=dppm. Did you mean d3pm or ddpm or iddpm? All: genbench list model",
        ),
        ("-m model=ddpm,dppm seed=0,1", "there is no model=dppm. Did you mean d3pm or ddpm"),
        ("dataset=cifar", "Did you mean cifar10? All: genbench list dataset"),
        ("sampler=dim", "Did you mean ddim"),
        ("model=ddim", "sampler=ddim can be typed"),
        ("experiment=digit/ddpm", "Did you mean digits/ddpm"),
        ("experiment=ddpm", "digits/ddpm"),
        ("metrics=[digits,incption]", "there is no metrics=incption. Did you mean inception?"),
        ("grid=unifrom", "Did you mean uniform? All: genbench list grid"),
        ("model=udm corruption=blurr", "Did you mean blur or blurring?"),
        ("corruption@_global_.corruption=blurr", "type corruption=blurr, without"),
        ("+model=ddpm", "type it without +"),
        ("trainer.stesp=3", "trainer.stesp=3: there is no setting trainer.stesp. Did you mean trainer.steps"),
        ("-m trainer.stesp=3 model=ddpm,flow", "Did you mean trainer.steps"),
        ("dataset=folder trainer.stesp=3", "Did you mean trainer.steps"),
        ("modle=ddpm", "Did you mean model?"),
        ("schedul=su", "Did you mean schedule?"),
        ("lr=1e-3", "Did you mean optim.lr"),
        ("epochs=10", "there is no setting epochs. All of this run: add --cfg job"),
        ("sampler=ddim rule=fresh", "nothing in this run takes a rule. What does: "),
        ("sampler=ddim rule.eta=1", "Did you mean sampler.rule.eta?"),
        ("head=log_ratio", "What does: model=fgan.\n"),
        ("dataset.path=DIR", "there is no setting dataset.path. All of this run"),
        ("sampler=ddim,heun", "type -m in front"),
        ("sampler=[a", "sampler=[a cannot be read as NAME=VALUE"),
        ("evluate runs/a", "Did you mean evaluate?"),
        ("seed", "type seed=VALUE"),
        ("ddpm", "type model=ddpm or sampler=ddpm"),
        ("--model ddpm", "settings have no dashes; type model=VALUE"),
        ("--trainer.steps=3", "type trainer.steps=3"),
        ("hydra.searchpath=[file://nowhere] model=mine", "nowhere is no folder"),
        ("corruption=static", "list corruption; one of your own needs 'hydra.searchpath=[file://DIR]' too"),
        ("seed=1 list samplers", "list samplers: there is no such group. Did you mean sampler?"),
        ("/", "/: type NAME=VALUE."),
        ("evaluate", "evaluate needs the run it is about: type evaluate RUN"),
        ("model=d3pm corruption=vp dataset=digits", "this corruption has none. Type model=udm and no"),
    ],
)
def test_what_does_not_exist_is_answered_in_one_line_of_near_names(typed, said):
    finished = genbench(*typed.split(), check=False)
    assert finished.returncode == 2
    assert finished.stderr.startswith("genbench: ")
    assert finished.stderr.count("\n") == 1
    assert said in finished.stderr
    assert "hydra.cc" not in finished.stderr
    assert "HYDRA_FULL_ERROR" not in finished.stderr


def test_a_run_alone_is_asked_what_to_do_with(tmp_path):
    (tmp_path / "config.yaml").touch()
    finished = genbench(str(tmp_path), check=False)
    assert f"{tmp_path}: type evaluate {tmp_path}, sample {tmp_path}, or run_dir=" in finished.stderr


def test_a_part_of_a_module_out_of_reach_says_how_to_reach_it():
    with pytest.raises(
        UserError, match=r"\(at corruption\).*'mystatic'; if it is yours, type PYTHONPATH=DIR"
    ):
        build({"corruption": {"_target_": "mystatic.Static"}, "_target_": "builtins.dict"}, "model")


@pytest.mark.parametrize("sampler", ["restore", "d3pm"])
def test_what_is_said_to_take_a_part_takes_it(compose, sampler):
    finished = genbench("sampler=ddim", "rule=fresh", check=False)
    assert f"sampler={sampler}" in finished.stderr
    typed = [f"sampler={sampler}", "rule=fresh"]
    assert compose("model=udm", *typed, typed=typed)["sampler"]["rule"]["sigma_tilde"] == 1


def test_names_of_the_same_last_part_come_before_those_spelt_alike():
    known = ["trainer.steps", "trainer.keep", "optim.lr", "sampler.rule.eta"]
    assert near("lr", known) == ["optim.lr"]
    assert near("sampler.eta", known) == ["sampler.rule.eta"]
    assert near("trainer.stpes", known) == ["trainer.steps"]
    assert near("trainer.ceep", known) == ["trainer.keep"]
    assert near("nonsense", known) == near("trainer.path", known) == []


def test_an_error_of_ours_still_shows_where_it_was_raised(monkeypatch):
    def fail(*arguments):
        raise ZeroDivisionError("of ours")

    monkeypatch.setattr(cli, "carry_out", fail)
    finished = genbench("logger=none", check=False)
    assert finished.returncode == 1
    assert "Traceback" in finished.stderr
    assert "ZeroDivisionError: of ours" in finished.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ["genbench", "--help"],
        ["genbench", "list"],
        ["genbench", "--cfg", "job"],
        ["genbench.leaderboard", "schema", "result"],
        ["genbench.baselines", "--root", "{empty}", "build"],
    ],
)
def test_a_reader_that_leaves_ends_the_program_without_noise(arguments, tmp_path):
    """As `| head -3`, whose end of the pipe is closed here before anything is written."""
    typed = [argument.replace("{empty}", str(tmp_path)) for argument in arguments]
    buffered = {key: value for key, value in environment().items() if key != "PYTHONUNBUFFERED"}
    reading, writing = os.pipe()
    os.close(reading)
    finished = subprocess.run(
        [sys.executable, "-m", *typed], stdout=writing, stderr=subprocess.PIPE, text=True, env=buffered
    )
    os.close(writing)
    assert (finished.returncode, finished.stderr) == (STATUS, "")


def test_a_search_path_is_kept_from_where_it_was_typed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    typed = ["seed=1", "hydra.searchpath=[file://my conf,plain,'pkg://mine.conf',file:///else]"]
    assert anchored(typed) == [
        "seed=1",
        f"hydra.searchpath=['file://{tmp_path}/my conf','file://{tmp_path}/plain','pkg://mine.conf','file:///else']",
    ]
    assert anchored(anchored(typed)) == anchored(typed)


def test_a_run_with_a_configuration_of_its_own_is_evaluated_from_elsewhere(tmp_path, monkeypatch):
    own, elsewhere = tmp_path / "myconf" / "sampler", tmp_path / "elsewhere"
    own.mkdir(parents=True)
    elsewhere.mkdir()
    (own / "mine.yaml").write_text("defaults: [ddim, _self_]\nname: mine\n")
    small = ["trainer.steps=2", "trainer.batch_size=4", "network.channels=8", "metrics.n_samples=10"]
    path = "hydra.searchpath=[file://myconf]"
    monkeypatch.chdir(tmp_path)
    genbench(*small, "logger=none", "device=cpu", path, "sampler=mine", "sampler.steps=1", "run_dir=runs/a")
    monkeypatch.chdir(elsewhere)
    finished = genbench("task=sample", "run_dir=../runs/a", "n=2")
    assert "samples/mine-step2" in finished.stdout
    (tmp_path / "myconf").rename(tmp_path / "moved")
    finished = genbench("task=sample", "run_dir=../runs/a", "n=2", check=False)
    assert f"{tmp_path}/myconf is no folder" in finished.stderr
    genbench("task=sample", "run_dir=../runs/a", "n=2", "hydra.searchpath=[file://../moved]")
