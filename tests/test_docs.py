"""The documentation: links lead somewhere, commands compose, names exist, and no number stands alone."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator, Sequence
from typing import get_args

import pytest
from documents import ROOT, SPAN, Page, pages
from hydra.core.override_parser.overrides_parser import OverridesParser
from pydantic import BaseModel

from genbench import cli
from genbench.configuration import conf_dir
from genbench.help import choices
from genbench.leaderboard.__main__ import _parser as leaderboard_parser
from genbench.leaderboard.record import Result

PAGES = pages()
MODELS = [page for page in PAGES if page.name.startswith("docs/models/")]
COMMANDS = sorted({command for page in PAGES for command in page.commands()})

PLACEHOLDER = re.compile(r"…|\.\.\. |\||(?<![\w/])[A-Z]{2,}(?![\w/])")
"""RUN, DIR|ZIP, … stand for what a reader has to fill in."""

SECTIONS = ("Maths", "Recipe", "Run it", "Samplers", "Results", "What goes wrong", "Sources")

NOT_TRAINED = {"classifier", "oracle", "diffusers"}
"""What task=extractor trains, what task=solvers compares samplers on, and what comes with its weights."""

NUMBER = re.compile(r"(?<![\w.@/-])\d+\.\d+(?![\w/])")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_to_what_exists(page):
    for link in page.links():
        assert link.path.resolve().is_relative_to(ROOT), f"{link} leaves the repository"
        assert link.path.exists(), f"{page.name} links {link.path}, which does not exist"
        if link.anchor is not None:
            target = Page(link.path.resolve().relative_to(ROOT).as_posix())
            assert link.anchor in target.anchors(), f"{target.name} has no heading #{link.anchor}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_name_linked_to_a_module_is_defined_there(page):
    """[`Eta`](.../gaussian_rules.py): the one link text that a rename would leave behind."""
    for link in page.links():
        name = re.fullmatch(r"`([A-Za-z_]\w*)`", link.text)
        if link.path.suffix == ".py" and name:
            defined = rf"^\s*(class|def) {name[1]}\b|^{name[1]}\s*[:=]"
            assert re.search(defined, link.path.read_text(), re.MULTILINE), f"{name[1]} is not in {link.path}"


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_composes_and_types_nothing_in_vain(compose, command):
    words = shlex.split(command, comments=True)
    if words[0] == "genbench.leaderboard":
        leaderboard_parser().parse_args(words[1:])
        return
    if PLACEHOLDER.search(command):
        pytest.skip("has a placeholder that the reader fills in")
    if any(word.startswith("hydra.searchpath=") for word in words):
        pytest.skip("needs the example's own configuration: run by test_examples or test_readme")
    typed = [word for word in words[1:] if "=" in word]
    for overrides in each_choice([*implied(typed), *typed]):
        compose(*overrides, typed=overrides)


def implied(typed: Sequence[str]) -> list[str]:
    """What a task implies where it is not about a run, and the command line adds by itself."""
    values = dict(word.split("=", 1) for word in typed)
    more = [] if "run_dir" in values else cli.IMPLIED.get(values.get("task", "train"), [])
    return [override for override in more if cli.key_of(override) not in values]


def each_choice(overrides: Sequence[str]) -> Iterator[list[str]]:
    """Overrides of single runs in which every value of a sweep (seed=0,1,2) occurs; not every combination."""
    parsed = OverridesParser.create().parse_overrides(list(overrides))
    values = [
        [f"{one.key_or_group}={value}" for value in one.sweep_string_iterator()]
        if one.is_sweep_override()
        else [word]
        for one, word in zip(parsed, overrides, strict=True)
    ]
    for number in range(max(map(len, values), default=1)):
        yield [each[min(number, len(each) - 1)] for each in values]


def test_every_model_has_a_page_that_names_it_and_runs_it():
    named = {model for page in MODELS for model in re.findall(r"\bmodel=([\w,]+)", page.text)}
    named = {model for group in named for model in group.split(",")}
    trained = {name for name in choices(conf_dir())["model"] if "/" not in name} - NOT_TRAINED
    assert trained <= named


@pytest.mark.parametrize("page", MODELS, ids=lambda page: page.name)
def test_a_models_page_says_what_every_page_says(page):
    for heading in SECTIONS:
        assert page.section(heading).strip(), f"{page.name} says nothing under {heading}"
    assert any(link.path.suffix == ".png" for link in page.links()), f"{page.name} shows no picture"
    assert any(command.startswith("genbench ") for command in page.commands())


@pytest.mark.parametrize("page", MODELS, ids=lambda page: page.name)
def test_no_result_is_quoted_that_is_not_recorded(page):
    """Numbers stand in the README, in records that the section links to, or in published.json."""
    section = page.section("Results")
    sources = [link.path for link in page.links(section) if link.path.suffix in (".md", ".json")]
    recorded = Page("README.md").text + "".join(path.read_text() for path in sources if path.is_file())
    assert set(NUMBER.findall(section)) <= published_numbers() | set(NUMBER.findall(recorded))


def published_numbers() -> set[str]:
    """Every number of published.json, as it is written there and to two places."""
    text = (ROOT / "genbench/leaderboard/published.json").read_text()
    values = [value["value"] for figure in json.loads(text) for value in figure["metrics"].values()]
    return set(NUMBER.findall(text)) | {f"{value:.2f}" for value in values}


def test_every_field_of_a_record_is_explained():
    told = set(re.findall(r"\w+", " ".join(SPAN.findall(Page("docs/files.md").section("result.json")))))
    assert fields(Result) <= told


def fields(record: type[BaseModel]) -> set[str]:
    """The names of a record's fields, those of records inside it included."""
    names = set(record.model_fields)
    for field in record.model_fields.values():
        inner = [field.annotation, *get_args(field.annotation)]
        names |= {
            n
            for kind in inner
            if isinstance(kind, type) and issubclass(kind, BaseModel)
            for n in fields(kind)
        }
    return names
