"""The command line itself: cheap imports, help, recalled overrides, sections."""

from __future__ import annotations

import os
import subprocess
import sys

from genbench import help as help_page
from genbench.cli import TASKS, recall, sections
from genbench.configuration import conf_dir
from genbench.words import key_of


def test_importing_genbench_and_its_command_line_does_not_import_torch():
    code = "import sys, genbench, genbench.cli, genbench.help; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_large_tensors_lie_in_large_pages_unless_the_environment_says_otherwise():
    """The variable that torch reads is there before torch is."""
    script = (
        "import os, sys; from genbench import cli; sys.argv[1:] = ['--cfg', 'job']; cli.main(); "
        "print(os.environ['THP_MEM_ALLOC_ENABLE'], 'torch' in sys.modules)"
    )
    for given, expected in (({}, "1 False"), ({"THP_MEM_ALLOC_ENABLE": "0"}, "0 False")):
        environment = {name: value for name, value in os.environ.items() if name[:4] != "THP_"} | given
        ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment)
        assert ran.stdout.splitlines()[-1] == expected, ran.stderr


def test_help_names_every_choice_a_newcomer_makes():
    page = help_page.text(conf_dir(), TASKS)
    for word in (
        "model=",
        "dataset=",
        "sampler=",
        "ddpm",
        "cifar10",
        "ddim",
        "ancestral",
        "inception",
        "seed=0,1,2",
    ):
        assert word in page
    assert "ddpm/digits" not in page.split("sampler=  ")[1].split("metrics=")[0]


def test_help_is_printed_without_composing_anything():
    finished = subprocess.run([sys.executable, "-m", "genbench", "--help"], capture_output=True, text=True)
    assert finished.returncode == 0
    assert finished.stdout == help_page.text(conf_dir(), TASKS)


def test_keys_of_overrides():
    assert [key_of(o) for o in ("a.b=1", "+a.b=1", "~a", "sampler@x=ddim", "a='x=y'")] == [
        "a.b",
        "a.b",
        "a",
        "sampler",
        "a",
    ]


def test_what_was_typed_now_replaces_what_was_typed_then():
    saved = ["dataset=digits", "sampler=ddim", "sampler.rule.eta=0.5", "seed=3"]
    assert recall(saved, ["sampler=ancestral"]) == ["dataset=digits", "seed=3"]
    assert recall(saved, ["sampler.steps=5"]) == saved
    assert recall(saved, ["seed=4"]) == saved[:3]


def test_parts_are_not_kept_as_sections():
    config = {"seed": 0, "model": {}, "schedule": {}, "grid": {}}
    assert sections(config, ["model", "schedule", "grid", "hydra/launcher"]) == {"seed": 0, "model": {}}
