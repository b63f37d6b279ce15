"""The generated page: the same bytes from the same submissions, ranks, ties, names that do nothing."""

from __future__ import annotations

import html
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from fakes import fill, name_of
from hypothesis import given, settings
from hypothesis import strategies as st

from genbench.leaderboard.markdown import cell
from genbench.leaderboard.numerals import amount, duration, number, seconds
from genbench.leaderboard.page import build
from genbench.leaderboard.standings import Table, read_rows, row, tied
from genbench.leaderboard.standings import tables as standing
from genbench.leaderboard.submission import MetricFigures, read_entry
from genbench.leaderboard.submitting import submit


@pytest.fixture
def enter(tmp_path, rules, make_runs):
    """Submits three seeds with the given values of fd_digits under a name; returns the leaderboard's root."""

    def submit_here(name, values, changes=None, **options):
        runs = make_runs(values, changes, name)
        options = {"date": "2025-02-03"} | options
        submit(runs, name=name, to=tmp_path / "board", rules=rules, say=lambda line: None, **options)
        return tmp_path / "board"

    return submit_here


def tables(root: Path) -> list[Table]:
    return standing(read_rows(root))


def rows(page: str) -> list[list[str]]:
    """The cells of every body row of the submissions' tables."""
    page = page.partition("## Published results")[0]
    lines = [line for line in page.splitlines() if line.startswith("| ") and not line.startswith("| Rank")]
    return [[part.strip() for part in line.strip("|").split("|")] for line in lines]


def test_a_board_without_submissions_says_so_and_how_to_submit(tmp_path) -> None:
    page = build(tmp_path)
    assert "There are no submissions yet." in page
    assert "python -m genbench.leaderboard submit" in page


def test_the_page_is_byte_identical_whatever_the_order_on_disk(enter, tmp_path) -> None:
    root = enter("ada", (1.0, 1.1, 1.2))
    enter("bob", (2.0, 2.1, 2.2), {"dataset.sha256": "b" * 64})
    enter("eve", (3.0,), note="once")
    page = build(root)
    assert build(root) == page
    copy = tmp_path / "copy"
    for directory in sorted(root.glob("submissions/*/*"), reverse=True):
        shutil.copytree(directory, copy / directory.relative_to(root))
    assert build(copy) == page
    command = "import sys; from genbench.leaderboard import build; sys.stdout.write(build(sys.argv[1]))"
    ran = subprocess.run(
        [sys.executable, "-X", "utf8", "-c", command, str(root)],
        capture_output=True,
        env={"PYTHONHASHSEED": "77", "TZ": "Asia/Tokyo", "LC_ALL": "C"},
        check=True,
    )
    assert ran.stdout.decode() == page


def test_a_row_states_everything(enter) -> None:
    page = build(enter("ada", (1.1, 1.2, 1.3), note="EMA 0.999"))
    assert "## digits 8×8, unconditional" in page
    assert "2,000 samples against the train split (SHA-256 aaaaaaaaaaaa)" in page
    (row,) = rows(page)
    assert row[:3] == ["1", "ddpm", "ddim"]
    assert row[3:7] == ["1.20 ± 0.10", "9.100 ± 0", "± 0.02000", "3"]
    assert row[7:13] == ["S", "512 k", "951 k", "50", "12 ms", "2.0 min"]
    assert row[13:18] == ["A CPU", "closed", "", "2025-02-03", "ada"]
    assert row[18].startswith("[files](submissions/digits/ddpm-ddim-")
    assert "- ddpm by ada: EMA 0.999" in page


def test_rows_are_ranked_tied_and_open_rows_come_last_unranked(enter) -> None:
    root = enter("fourth", (4.0, 4.1, 4.2))
    enter("first", (1.0, 1.1, 1.2))
    enter("tied", (1.05, 1.15, 1.25))
    enter("third", (2.0, 2.1, 2.2))
    enter("best", (0.1, 0.1, 0.1), division="open")
    page = rows(build(root))
    assert [(row[0], row[17]) for row in page] == [
        ("1", "first"),
        ("1", "tied"),
        ("3", "third"),
        ("4", "fourth"),
        ("–", "best"),
    ]


def test_ties_do_not_chain(enter) -> None:
    """a ~ b and b ~ c but not a ~ c: c opens a rank of its own."""
    root = enter("a", (1.0, 1.1, 1.2))
    enter("b", (1.09, 1.19, 1.29))
    enter("c", (1.18, 1.28, 1.38))
    assert [(row[0], row[17]) for row in rows(build(root))] == [("1", "a"), ("1", "b"), ("3", "c")]


@pytest.mark.parametrize(
    "changes",
    [
        {"dataset.sha256": "b" * 64},
        {"dataset.split": "test"},
        {"sampling.conditional": True},
        {"sampling.n_samples": 4000},
        {"dataset.resolution": 16},
    ],
)
def test_incomparable_rows_never_share_a_table(enter, changes) -> None:
    root = enter("ada", (1.0, 1.1, 1.2))
    enter("bob", (2.0, 2.1, 2.2), changes, division="open")
    assert [len(table.rows) for table in tables(root)] == [1, 1]


def test_tables_are_sorted_by_track_not_by_directory(enter) -> None:
    root = enter("a", (1.0,), {"dataset.resolution": 16})
    enter("b", (1.0,))
    assert [table.track.resolution for table in tables(root)] == [8, 16]


def test_a_row_without_the_main_metric_is_not_ranked(enter) -> None:
    few = {f"metrics.{k}.{key}": v for k in (0, 1) for key, v in {"n_samples": 500}.items()}
    few |= {"metrics.0.name": "fd_digits@500", "metrics.1.name": "is_digits@500"}
    root = enter("ada", (1.0, 1.1, 1.2))
    enter("few", (0.5, 0.5, 0.5), few, division="open")
    table = tables(root)[0]
    assert table.main == "fd_digits"
    assert [row.rank for row in table.rows] == [1, None]
    assert table.metrics[0].name == "fd_digits"


def test_the_main_metric_is_the_distance_most_rows_have_and_fid_among_equals(enter, plain) -> None:
    fid = plain()["metrics"][0] | {"name": "fid", "n_samples": 50_000, "value": 3.0}
    fid |= {"extractor": "inception", "extractor_sha256": "6726825d" + "0" * 56}
    drawn = {"sampling.n_samples": 50_000, "config.metrics.n_samples": 50_000}
    both = drawn | {"metrics.1": fid}
    own = drawn | {"metrics.1.name": "kid_digits", "metrics.1.better": "lower"}
    root = enter("both", (1.0, 1.1, 1.2), both, division="open")
    assert [table.main for table in tables(root)] == ["fid"]
    assert [metric.name for metric in tables(root)[0].metrics] == ["fid", "fd_digits"]
    enter("own", (2.0, 2.1, 2.2), own, division="open")
    assert [table.main for table in tables(root)] == ["fd_digits"]


def test_nothing_but_a_distance_is_ever_ranked_by(enter) -> None:
    """Not one extrapolated from distances, and no diagnostic, even where there is nothing else."""
    shown = {"metrics.0.name": "fd_infinity_digits", "metrics.1.name": "authenticity_digits"}
    root = enter("ada", (1.0, 1.1, 1.2), shown | {"metrics.1.better": "neither"}, division="open")
    table = tables(root)[0]
    assert table.main is None
    assert [row.rank for row in table.rows] == [None]
    assert "authenticity_digits |" in build(root)


def figures(mean: float, std: float | None) -> MetricFigures:
    return MetricFigures(name="fid", mean=mean, std=std, evaluation_std=None, better="lower")


def test_a_tie_is_a_difference_within_the_pooled_spread() -> None:
    assert tied(figures(1.0, 3.0), figures(4.0, 3.0))
    assert not tied(figures(1.0, 3.0), figures(4.001, 3.0))
    assert tied(figures(0.0, 1.0), figures(5.0, 7.0))  # sqrt((1 + 49) / 2) = 5
    assert not tied(figures(0.0, 1.0), figures(5.001, 7.0))
    assert tied(figures(1.0, None), figures(1.0, None))


HOSTILE = (
    "a|b](x) **b** <img src=x onerror=1> `c` {{ 7*7 }} {% raw %} &lt; #5 @x "
    "https://e.org www.e.org [l](u) ~s~ _e_"
)


def test_names_and_notes_cannot_act(enter) -> None:
    page = build(enter("plain", (1.0, 1.1, 1.2)))
    hostile = name_of(HOSTILE)
    with_hostile = build(
        enter(hostile, (2.0, 2.1, 2.2), {"model.name": hostile, "config.model.name": hostile}, note=HOSTILE)
    )
    added = [line for line in with_hostile.splitlines() if line not in page.splitlines()]
    assert len(added) == 2, "one row and one note"
    assert len(rows(with_hostile)[1]) == len(rows(page)[0])
    for line in added:
        text = line.split("[files]")[0].removeprefix("- ").strip("| ")
        for character in "<>`*[]{}@~_":
            assert character not in text
        assert "://" not in text
        assert "www." not in text
        assert "49" not in text


@settings(max_examples=120, deadline=None)
@given(st.text(max_size=60))
def test_escaped_text_reads_as_itself_and_is_one_line(text: str) -> None:
    shown = cell(text)
    assert not set(shown) & set('|<>`*[]{}\n\r\\~!"$^@:')
    readable = "".join(c for c in text if c.isprintable() or c.isspace())  # HTML has no other characters
    assert html.unescape(cell(readable)) == "".join(" " if c.isspace() else c for c in readable)


def test_numbers_are_for_people() -> None:
    assert [number(v) for v in (3.17, 31.2449, 0.00012344, 0.0, 1000.0, 99999.6)] == [
        "3.170",
        "31.24",
        "0.0001234",
        "0.000",
        "1000",
        "100000",
    ]
    assert [amount(v) for v in (950, 951_233, 35_746_307, 999_999)] == ["950", "951 k", "35.7 M", "1000 k"]
    assert [duration(v) for v in (42, 120.5, 7200, 200_000)] == ["42 s", "2.0 min", "2.0 h", "2.3 d"]
    assert [seconds(v) for v in (1.24, 0.035, 4.1e-6)] == ["1.2 s", "35 ms", "4.1 µs"]


@pytest.mark.parametrize(
    ("typed", "told"),
    [
        (("experiment=digits/udm-blur", "seed=0"), "udm-blur"),
        (("model=fgan", "dataset=digits", "divergence=kl", "optim.lr=1e-4"), "divergence=kl, optim.lr=1e-4"),
        (("metrics=likelihood", "seed=2", "trainer.evaluate_every=9"), ""),
        (("experiment=digits/{model}",), ""),
        (("x=" + "y" * 100,), "x=" + "y" * 58),
    ],
)
def test_a_row_says_which_recipe_of_its_model_it_is(tmp_path, typed, told):
    (directory,) = fill(tmp_path, 1, images=False).glob("submissions/*/*")
    found = row(read_entry(directory), tmp_path)
    typed = tuple(each.format(model=found.figures.model) for each in typed)
    assert replace(found, commands=(typed,)).variant == told
