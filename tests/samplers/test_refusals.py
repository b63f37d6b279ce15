"""A sampler that does not fit a corruption is refused in words that can be typed, and the advice helps."""

from __future__ import annotations

import re

import pytest
import torch

from genbench.configuration import conf_dir
from genbench.errors import UserError
from genbench.harness import preflight
from genbench.harness.assembly import Assembly, build_sampler, settle_precision
from genbench.harness.distributed import Ranks

CPU = torch.device("cpu")
CHAINS = {"absorbing", "gaussian_discrete", "uniform"}
CORRUPTIONS = sorted(path.stem for path in (conf_dir() / "corruption").glob("*.yaml"))
SAMPLERS = sorted({*preflight.known_samplers(), "predictor_corrector"})
README = (conf_dir().parent / "README.md").read_text(encoding="utf-8")
MOVES = ["sampler.steps=4"]
"""Deletion of digits' rows takes no more."""

START = re.compile(r"[Tt]ype grid\.(start|sigma_max)=[\d.]+")
"""Advice to begin elsewhere."""

ORDINARY = {"Gaussian"}
"""Classes whose names are words."""


@pytest.fixture(scope="module")
def samplers(compose):
    """Every sampler of conf/, by name."""
    return {name: build_sampler(compose("model=udm", f"sampler={name}")["sampler"]) for name in SAMPLERS}


def assembly_of(compose, corruption, *overrides):
    model = "d3pm" if corruption in CHAINS else "udm"
    config = compose(f"model={model}", f"corruption={corruption}", "network.channels=16", *overrides)
    return Assembly(settle_precision(config, CPU), CPU, Ranks())


def refusal(sampler, model):
    """What preflight says of a pair; None where it fits."""
    try:
        preflight.check_sampler(sampler, model, "NAME")
    except UserError as error:
        return str(error)
    return None


@pytest.mark.parametrize("corruption", CORRUPTIONS)
def test_refusals_name_no_class_and_their_advice_is_taken(compose, samplers, corruption):
    model = assembly_of(compose, corruption).generator()
    refused = {name: said for name, sampler in samplers.items() if (said := refusal(sampler, model))}
    classes = {type(part).__name__ for part in (model, model.corruption, *samplers.values())}
    classes |= {type(sampler.rule).__name__ for sampler in samplers.values() if hasattr(sampler, "rule")}
    for name, said in refused.items():
        assert not (classes - ORDINARY) & set(re.findall(r"\w+", said)), (name, said)
    for advice in set(re.findall(r"sampler=restore(?: rule=\w+)?", " ".join(refused.values()))):
        advised = assembly_of(compose, corruption, *advice.split(), *MOVES).sampler()
        assert refusal(advised, model) is None, advice


def test_the_readme_says_which_samplers_drive_which_corruption(compose, samplers):
    rows = re.findall(r"^\| (?:stochastic|probability-flow ODE) \| (.*) \|$", README, re.MULTILINE)
    above = {name for row in rows for name in re.findall(r"`(\w+)`", row)}
    said = re.search(
        r"section above drive ([`\w ]+), of them ([`\w ]+) also ([`\w ]+);", " ".join(README.split())
    )
    every, some, also = (re.findall(r"\w+", part) for part in said.groups())
    assert len(above) == 13
    told = {**dict.fromkeys(every, above), **{name: set(some) for name in also}}
    for corruption in set(CORRUPTIONS) - {"levels"}:  # NCSN's, and in no table
        model = assembly_of(compose, corruption).generator()
        answers = {name: refusal(samplers[name], model) or "" for name in above}
        # Flow leaves none of the data at its first time; the README says what is typed there.
        fitting = {name for name, said in answers.items() if not said or START.search(said)}
        assert fitting == told.get(corruption, set()), corruption
