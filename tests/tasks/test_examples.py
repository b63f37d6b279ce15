"""The examples of docs/add, run as they stand there, but for their length."""

from __future__ import annotations

import contextlib
import io
import itertools
import runpy
import shlex

import pytest
import torch
from command_line import genbench
from documents import Page, pages

from genbench.corruptions.condition import check_star
from genbench.corruptions.continuous import VP
from genbench.corruptions.gaussian import Gaussian
from genbench.generators.oracles import MixtureOracle
from genbench.ops.random import Keys
from genbench.samplers.counting import Counted
from genbench.samplers.grids import Uniform
from genbench.samplers.iterative import Path

EXAMPLES = [page for page in pages() if page.runs() and page.name.startswith("docs/")]

SHORT = ["logger=none", "device=cpu", "trainer.steps=3", "metrics.n_samples=20", "trainer.batch_size=8"]
"""Typed behind what the page says: of a value typed twice the last one counts."""

SOLVERS = ["solvers.steps=[3]", "solvers.images=200", "device=cpu"]
"""The same for a comparison of samplers, which does not train."""

DENOISING = {"model=ddpm", "model=udm"}


def test_there_is_an_example_of_everything_that_can_be_added():
    names = {page.path.stem for page in EXAMPLES}
    assert {"dataset", "corruption", "sampler", "metric", "extractor", "generator"} <= names


@pytest.mark.parametrize("page", EXAMPLES, ids=lambda page: page.path.stem)
def test_the_examples_of_a_page_run(page, tmp_path, monkeypatch):
    for name, contents in page.files().items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(contents, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    for command in page.runs():
        first, python, *words = shlex.split(command)
        assert (first, python) == ("PYTHONPATH=.", "python"), "what this test stands for"
        if words[0].endswith(".py"):
            with contextlib.redirect_stdout(io.StringIO()):
                runpy.run_path(words[0], run_name="__main__")
            continue
        assert words[:2] == ["-m", "genbench"]
        genbench(*words[2:], *shorter(words))
    assert list(tmp_path.rglob("runs/*"))


def test_the_pages_sampler_and_rule_are_what_it_says(tmp_path):
    """Midpoint of second order on a Gaussian, EarlyNoise under the condition of every rule."""
    script = tmp_path / "mysamplers.py"
    script.write_text(Page("docs/add/sampler.md").files()["mysamplers.py"], encoding="utf-8")
    defined = runpy.run_path(str(script))
    vp = Gaussian(VP())
    model = MixtureOracle(vp, [[[[0.3]]]], [0.5], [1.0])
    x = torch.linspace(-1.5, 1.5, 4, dtype=torch.float64).reshape(4, 1, 1, 1)
    errors = []
    for steps in (16, 32, 64):
        times = torch.linspace(1, 0.2, steps + 1, dtype=torch.float64)
        sampler = defined["Midpoint"](steps, Uniform())
        path = Path(Counted(model, 4), vp, sampler.take, Keys(torch.arange(4), 0), None, {})
        # The flow of N(m, c^2) is affine: a deviation from alpha m grows as that of the marginal does.
        alpha, sigma = vp.alpha(times[[0, -1]]), vp.sigma(times[[0, -1]])
        start, end = (0.25 * alpha**2 + sigma**2).sqrt()
        exact = 0.3 * alpha[1] + (x - 0.3 * alpha[0]) * end / start
        errors.append((sampler.walk(x, times, path) - exact).abs().max())
    # 4.2 and 4.1 were measured; a method of first order has 2, of third 8.
    assert all(3.6 < float(a / b) < 4.6 for a, b in itertools.pairwise(errors))
    image = torch.linspace(-1, 1, 4).reshape(1, 2, 2)
    rule = defined["EarlyNoise"](least=0.3)
    for s, t in ((0.1, 0.3), (0.3, 0.8)):  # sigma_s is below and above `least`
        assert check_star(vp, rule, image, s, t, draws=4000).holds


def shorter(words: list[str]) -> list[str]:
    """What to type behind a command so that it takes a second."""
    if "task=solvers" in words:
        return SOLVERS
    steps = ["sampler.steps=3"] if DENOISING & set(words) else []
    own = any(word.startswith("network=") for word in words)
    return [*SHORT, *steps, *(["network.channels=8"] if steps and not own else [])]
