"""What the README says can be chosen for each corruption is what is accepted, the first unless typed."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf

from genbench.configuration import conf_dir
from genbench.contracts import UserError
from genbench.harness.assembly import Assembly, settle_precision
from genbench.harness.distributed import Ranks
from genbench.samplers.grids import Uniform
from genbench.samplers.restore import Restore

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
CPU = torch.device("cpu")
CHAINS = {"gaussian_discrete", "uniform", "absorbing"}


def choices(group):
    """Name and object of every file of a group that names one; what follows a corruption is `default`."""
    files = sorted((conf_dir() / group).glob("*.yaml"))
    return {path.stem: instantiate(OmegaConf.load(path)) for path in files if path.stem != "default"}


def table():
    """(corruption, rules, draws) of every row of the README's table."""
    _, _, after = README.partition("| `corruption=` | what is destroyed |")
    for line in after.splitlines()[2:]:
        if not line.startswith("|"):
            return
        cells = [re.findall(r"`([^`]+)`", cell) for cell in line.split("|")[1:-1]]
        for name in cells[0]:
            yield name, cells[2], cells[3]


def accepted(model, **parts):
    try:
        Restore(4, Uniform(), clip=False, **parts).check(model)
    except UserError:
        return False
    return True


@pytest.mark.parametrize(("corruption", "rules", "draws"), list(table()))
def test_the_readme_names_the_rules_and_draws_that_fit(compose, corruption, rules, draws):
    model = "d3pm" if corruption in CHAINS else "udm"
    config = compose(f"model={model}", f"corruption={corruption}", "network.channels=16")
    assembly = Assembly(settle_precision(config, CPU), CPU, Ranks())
    generator, sampler = assembly.generator(), assembly.sampler()
    assert (sampler.rule, type(sampler.draw)) == (
        choices("rule")[rules[0]],
        type(choices("draw")[draws[0]]),
    )
    fitting = {name for name, rule in choices("rule").items() if accepted(generator, rule=rule)}
    assert fitting == set(rules)
    first = choices("rule")[rules[0]]
    fitting = {n for n, draw in choices("draw").items() if accepted(generator, rule=first, draw=draw)}
    assert fitting == set(draws)
