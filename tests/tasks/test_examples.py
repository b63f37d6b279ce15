"""The examples of docs/add, run as they stand there, but for their length."""

from __future__ import annotations

import contextlib
import io
import runpy
import shlex

import pytest
from command_line import genbench
from documents import pages

EXAMPLES = [page for page in pages() if page.runs() and page.name.startswith("docs/")]

SHORT = ["logger=none", "device=cpu", "trainer.steps=3", "metrics.n_samples=20", "trainer.batch_size=8"]
"""Typed behind what the page says: of a value typed twice the last one counts."""

SHORTER = {"task=solvers": ["solvers.steps=[3]", "solvers.images=200", "device=cpu"]}
"""The same by task, for those that do not train."""

SAMPLING = {"model=ddpm": ["sampler.steps=3"], "model=udm": ["sampler.steps=3"]}


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


def shorter(words: list[str]) -> list[str]:
    """What to type behind a command so that it takes a second."""
    for task, typed in SHORTER.items():
        if task in words:
            return typed
    return [*SHORT, *(override for model, more in SAMPLING.items() if model in words for override in more)]
