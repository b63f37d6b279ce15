"""index.html without a browser: its policy, what it escapes, what it embeds, its colours, its data."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import os
import re
import shlex
import struct
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from fakes import fill, name_of, picture
from hypothesis import given
from hypothesis import strategies as st

from genbench.leaderboard import plain_yaml
from genbench.leaderboard.checking import check
from genbench.leaderboard.grids import LARGEST, SIDE, sample_grids
from genbench.leaderboard.page import WEBPAGE, build, pages, write
from genbench.leaderboard.payload import Nodes
from genbench.leaderboard.published import BETTER, published
from genbench.leaderboard.reproducing import command
from genbench.leaderboard.rules import Rules, shipped_rules
from genbench.leaderboard.standings import read_rows, tables
from genbench.leaderboard.webpage import WEB, encode

HOSTILE = (
    "</script><script>window.hacked=1</script>",
    "<img src=x onerror=window.hacked=1>",
    "\"><svg onload=window.hacked=1> ' ` ${window.hacked=1} {{7*7}}",
    "javascript:window.hacked=1 &lt;b&gt; <!-- ]]> \\u003c",
)


@pytest.fixture(scope="module")
def board(tmp_path_factory) -> Path:
    root = fill(tmp_path_factory.mktemp("fakes") / "board", 24)
    write(root)
    return root


@pytest.fixture(scope="module")
def page(board: Path) -> str:
    return (board / WEBPAGE).read_text()


def data_of(page: str) -> dict[str, Any]:
    """The data a browser would parse from the page."""
    (text,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    return json.loads(text)


def rows_of(data: dict[str, Any]) -> list[dict[str, Any]]:
    return [dict(zip(data["fields"], row, strict=True)) for track in data["tracks"] for row in track["rows"]]


def test_the_policy_admits_this_script_and_this_style_and_nothing_else(page) -> None:
    (policy,) = re.findall(r'<meta http-equiv="Content-Security-Policy" content="([^"]*)">', page)
    rules = dict(rule.split(" ", 1) for rule in html.unescape(policy).split("; "))
    scripts = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    styles = re.findall(r"<style>(.*?)</style>", page, re.DOTALL)
    assert (len(scripts), len(styles)) == (1, 1)

    def source(text: str) -> str:
        return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"

    assert rules == {
        "default-src": "'none'",
        "script-src": source(scripts[0]),
        "style-src": source(styles[0]),
        "img-src": "data:",
        "base-uri": "'none'",
        "form-action": "'none'",
    }
    assert page.index("Content-Security-Policy") < page.index("<style>")
    shell = page.partition("<main>")[0] + page.partition("<main>")[2].partition('id="data">')[0]
    assert not re.search(r"<[^>]*\s(on\w+|style|src|srcset)=", shell)


def test_the_page_names_no_address_but_papers(page) -> None:
    addresses = set(re.findall(r"(?:https?:)?//[\w.-]+\.\w+[\w./-]*", page))
    assert {a for a in addresses if not a.startswith("https://arxiv.org/abs/")} == {
        "http://www.w3.org/2000/svg"  # a name, of the markup's kind; nothing is fetched from it
    }
    assert "innerHTML" not in page
    assert "eval(" not in page


def test_the_same_bytes_in_any_order_and_process(board, page, tmp_path) -> None:
    rows = list(read_rows(board))
    assert pages(board, rows[::-1]) == pages(board, rows)
    program = (
        "import sys; from pathlib import Path; from genbench.leaderboard.page import pages; "
        "from genbench.leaderboard.standings import read_rows; root = Path(sys.argv[1]); "
        "sys.stdout.buffer.write(pages(root, read_rows(root))['index.html'].encode())"
    )
    ran = subprocess.run(
        [sys.executable, "-c", program, str(board)],
        capture_output=True,
        env={"PYTHONHASHSEED": "77", "TZ": "Asia/Tokyo", "LC_ALL": "C", "PYTHONPATH": str(WEB.parents[2])},
        check=True,
    )
    assert ran.stdout.decode() == page


def test_a_stale_page_is_found(board, page) -> None:
    path = board / WEBPAGE
    for text in (page.replace("genbench", "gembench", 1), page + " ", page[:-1], ""):
        path.write_text(text)
        assert [str(problem) for problem in check(board)] == [
            f"{path}: out of date. Type: python -m genbench.leaderboard build --to {board}"
        ]
    path.unlink()
    assert f"{path}: out of date" in str(check(board)[0])
    path.write_text(page)
    assert check(board) == []


def test_each_file_is_read_once(board, monkeypatch) -> None:
    """By check, which also regenerates the pages: what is summed is what is parsed, and what is shown."""
    seen: list[Path] = []
    opened = os.open
    monkeypatch.setattr(os, "open", lambda path, *rest: seen.append(Path(path)) or opened(path, *rest))
    assert check(board) == []
    records = [path for path in seen if path.suffix in (".json", ".safetensors") and board in path.parents]
    assert len(set(records)) == 24 * 7 + 4 + 3  # reviews, schemas
    assert len(records) == len(set(records))


def test_what_submitters_wrote_is_in_the_data_alone_and_unchanged(tmp_path) -> None:
    def edit(index: int, value: dict[str, Any]) -> None:
        value["submitter"], value["note"] = name_of(HOSTILE[index]), HOSTILE[index]

    root = fill(tmp_path / "board", len(HOSTILE), edit=edit)
    text = pages(root, read_rows(root))[WEBPAGE]
    quiet = pages(root, [replace(row, submitter="x", note=None) for row in read_rows(root)])[WEBPAGE]
    marker = 'id="data">'
    assert text.partition(marker)[0] == quiet.partition(marker)[0]
    assert text.rpartition("</script>\n<script>")[2] == quiet.rpartition("</script>\n<script>")[2]
    inside = text.partition(marker)[2].partition("</script>")[0]
    assert not set(inside) & set("<>&")
    found = rows_of(data_of(text))
    assert {row["note"] for row in found} == set(HOSTILE)
    assert {row["submitter"] for row in found} == set(map(name_of, HOSTILE))


@given(st.dictionaries(st.text(max_size=8), st.lists(st.text(max_size=20)), max_size=4))
def test_encoded_data_ends_no_element_and_reads_back(value) -> None:
    value |= {"tracks": [{"rows": [["</script", "\u2028"]]}], "nodes": [{"rows": 1}, None]}
    text = encode(value)
    assert text.isascii()
    assert not set(text) & set("<>&")
    assert json.loads(text) == value


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=20,
)


@given(st.lists(JSON, max_size=4))
def test_configurations_unfold_to_themselves(values) -> None:
    nodes = Nodes()
    positions = [nodes.add(value) for value in values]

    def unfold(position: int) -> Any:
        node = nodes.values[position]
        if isinstance(node, dict):
            return {key: unfold(inner) for key, inner in node.items()}
        return [unfold(inner) for inner in node] if isinstance(node, list) else node

    assert [json.dumps(unfold(position), sort_keys=True) for position in positions] == [
        json.dumps(value, sort_keys=True) for value in values
    ]
    assert len(nodes.values) == len({json.dumps([type(v).__name__, v]) for v in nodes.values})


def test_like_configurations_share_what_they_have_in_common(board) -> None:
    nodes = Nodes()
    alone = []
    for row in read_rows(board):
        before = len(nodes.values)
        nodes.add(json.loads(row.config))
        alone.append(len(nodes.values) - before)
    assert alone[0] > 60
    assert max(alone[8:]) < 20  # the path to each number that differs


YAML = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=60)
    | st.text(alphabet="abc. _'", min_size=30, max_size=140)  # long enough to be folded
    | st.sampled_from(
        ["yes", "1e3", "~", "- a", "a: b", "#", "'", "0x1", "1:2", "2020-01-01", "=", "", "a\n"]
    ),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["a", "b_c", "yes", "1", "", "a b", "?x", "_target_", "k" * 41]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=25,
)


@given(st.dictionaries(st.text(max_size=30), YAML, max_size=5))
def test_configurations_are_written_as_pyyaml_writes_them(value) -> None:
    assert plain_yaml.dump(value) == yaml.safe_dump(
        value, sort_keys=True, default_flow_style=False, allow_unicode=False, width=100
    )


@pytest.mark.parametrize("text", ["ab " * 40, "a" * 120, "'b " * 40, ": b" * 40, "é b" * 40, "é" * 60])
def test_lines_are_folded_where_pyyaml_folds_them(text: str) -> None:
    """At every length and indent around the 100th column, with and without blanks, quotes and escapes."""
    for length in range(10, 110):
        for key in ("k", "k" * 40):
            value: Any = {key: {key: text[:length].strip()}}
            written = yaml.safe_dump(value, sort_keys=True, default_flow_style=False, width=100)
            assert plain_yaml.dump(value) == written


def test_deep_configurations_too() -> None:
    value: Any = "a value of several words, near the line's end"
    for depth in range(20):
        value = {f"{depth}{'k' * 30}": [value, 1] if depth % 3 else value}
        written = yaml.safe_dump(value, sort_keys=True, default_flow_style=False, width=100)
        assert plain_yaml.dump(value) == written


def test_the_first_rows_of_each_track_have_their_grids_until_the_budget_is_used(board) -> None:
    standing = tables(read_rows(board))
    assert len(standing) == 3
    size = max(len((board / row.place / "samples.png").read_bytes()) for row in read_rows(board))
    few = sample_grids(standing, board, budget=4 * size)
    assert set(few) >= {table.rows[0].place for table in standing}
    assert sum(len(base64.b64decode(grid)) for grid in few.values()) <= 4 * size
    everything = sample_grids(standing, board)
    assert len(everything) == 24
    for place, grid in everything.items():
        assert base64.b64decode(grid) == (board / place / "samples.png").read_bytes()


def _png(width: int, height: int) -> bytes:
    real = picture(0)
    return real[:16] + struct.pack(">II", width, height) + real[24:]


@pytest.mark.parametrize(
    "contents",
    [
        pytest.param(_png(SIDE + 1, 1), id="wide"),
        pytest.param(_png(1, SIDE + 1), id="high"),
        pytest.param(_png(60_000, 60_000), id="bomb"),
        pytest.param(picture(0) + bytes(LARGEST), id="large"),
        pytest.param(picture(0)[:20], id="cut"),
        pytest.param(b"<svg onload='hacked()'/>", id="svg"),
        pytest.param(b"GIF89a" + bytes(40), id="gif"),
        pytest.param(b"", id="empty"),
    ],
)
def test_pictures_that_do_not_belong_into_a_page_are_left_out(tmp_path, contents: bytes) -> None:
    root = fill(tmp_path / "board", 1)
    (row,) = read_rows(root)
    path = root / row.place / "samples.png"
    path.write_bytes(_png(SIDE, SIDE))
    assert list(sample_grids(tables([row]), root)) == [row.place]
    path.write_bytes(contents)
    assert sample_grids(tables([row]), root) == {}
    path.unlink()
    path.symlink_to(WEB / "style.css")
    assert sample_grids(tables([row]), root) == {}


def test_the_command_trains_all_seeds_of_the_recorded_commit(board) -> None:
    row = next(iter(read_rows(board)))
    checkout, train = command(row).splitlines()
    assert checkout == f"git checkout {row.commits[0]}"
    assert train.startswith("python -m genbench -m model=")
    assert train.endswith("seed=0,1,2")
    assert command(replace(row, commits=())).splitlines() == [train]
    single = replace(row, figures=row.figures.model_copy(update={"training_seeds": [4]}))
    assert command(single).endswith(" seed=4")
    assert " -m genbench model=" in command(single)


@pytest.mark.parametrize(
    "override",
    [
        "model._target_=os.system",
        "+x={_target_:os.system}",
        "a=$(touch x)",
        "a=`touch x`",
        "a=1; touch x",
        "a=1\ntouch x",
        "a='",
        "a=${oc.env:HOME}",
        "--config-dir=/tmp",
        "-cd=/tmp",
        "hydra.run.dir=/tmp",
        "hydra/launcher=evil",
        "+hydra.searchpath=[pkg://evil]",
        "model@hydra.launcher=evil",
        "model@_global_=ddpm",
        "+experiment@_global_=../../leaderboard/evil/config",
        "+experiment=digits/ddpm",
        "++recipe/digits=ddpm",
        "experiment=../evil/config",
        "experiment=digits/../../evil/config",
        "experiment/../../evil=config",
        "experiment=/tmp/evil/config",
        "metrics=[digits,/tmp/evil]",
        "+model.extra={path:/tmp/evil}",
        "run_dir=/etc",
        "checkpoint=/home/someone/x",
        "a=\u202eb",
        "a=ｂ",
        "model",
        "",
    ],
)
def test_a_command_that_could_do_anything_else_is_not_offered(board, override: str) -> None:
    row = next(iter(read_rows(board)))
    commands = tuple((*overrides, override) for overrides in row.commands)
    assert command(replace(row, commands=commands)) is None


@pytest.mark.parametrize(
    "override",
    [
        "experiment=cifar10/udm-blur-short",
        "metrics=[cifar10,inception]",
        "optim.lr=2.5e-4",
        "+model.extra=-1",
        "++optim.phases.critic.betas=[0.5,.9]",
        "metrics.seeds=[0,1,2]",
        "dataset.path=pictures/cats",
        "ema=none",
    ],
)
def test_an_honest_command_is_offered(board, override: str) -> None:
    row = next(iter(read_rows(board)))
    commands = tuple((*overrides, override) for overrides in row.commands)
    assert override in shlex.split(command(replace(row, commands=commands)).splitlines()[-1])


def test_commands_that_differ_between_seeds_are_not_offered(board) -> None:
    row = next(iter(read_rows(board)))
    assert command(replace(row, commands=(*row.commands[:2], ("model=other", "seed=2")))) is None


def test_published_rows_stand_apart_from_ours_everywhere(board, page) -> None:
    tracks = data_of(page)["tracks"]
    ours = next(t for t in tracks if t["dataset"] == "cifar10" and t["rows"])
    assert [row[0] for row in ours["rows"]].count(1) >= 1
    assert len(ours["published"]) == sum(row.about == ("cifar10", 32, False) for row in published())
    assert all("rank" not in row for track in tracks for row in track["published"])
    without = pages(board, [row for row in read_rows(board) if row.figures.dataset != "cifar10"])[WEBPAGE]
    (alone,) = (t for t in data_of(without)["tracks"] if t["id"] == "cifar10-32-published")
    assert alone["published"] == ours["published"]
    markdown = build(board)
    ranked, _, reference = markdown.partition("## Published results, for reference")
    assert "| EDM |" in reference
    assert "arxiv.org" not in ranked


def test_published_figures_are_those_of_methods() -> None:
    """A few of METHODS.md 13, and the rules of what is left out."""
    known = {(row.method, row.conditional): row for row in published() if row.dataset == "cifar10"}
    assert len(known) == sum(row.dataset == "cifar10" for row in published())
    assert known["EDM", False].metrics["fid"].value == 1.97
    assert known["EDM, conditional", True].metrics["fid"].value == 1.79
    ddpm = known["DDPM, L_simple", False]
    assert (ddpm.metrics["fid"].value, ddpm.metrics["bpd"].text, ddpm.nfe) == (3.17, "≤ 3.75", 1000)
    assert known["R3GAN", True].evidence == "secondary"
    assert not any("MDSM" in method or "Cold" in method for method, _ in known)
    assert list(published()) == sorted(
        published(),
        key=lambda row: (
            row.dataset,
            row.resolution,
            row.conditional,
            row.metrics["fid"].value if "fid" in row.metrics else 1e9,
            row.method,
        ),
    )
    for row in published():
        assert row.metrics
        assert row.metrics.keys() <= BETTER.keys()
        assert row.protocol
        for figure in row.metrics.values():
            printed = re.search(r"[\d.]+", figure.text)
            assert printed is not None
            assert float(printed[0]) == pytest.approx(figure.value, abs=0.0051)


def test_a_long_table_ends_and_says_where_the_rest_is(board, monkeypatch) -> None:
    monkeypatch.setattr("genbench.leaderboard.markdown.SHOWN_ROWS", 5)
    text = build(board).partition("## Published results")[0]
    counts = [len(table.rows) for table in tables(read_rows(board))]
    assert max(counts) > 5
    assert text.count("[files]") == sum(min(count, 5) for count in counts)
    for count in counts:
        assert (f"{count - 5} more rows are in" in text) == (count > 5)


def _colours() -> dict[str, tuple[str, str]]:
    style = (WEB / "style.css").read_text()
    return {n: (a, b) for n, a, b in re.findall(r"--([\w-]+): light-dark\((#\w{6}), (#\w{6})\);", style)}


def luminance(colour: str) -> float:
    """Relative luminance of "#rrggbb" (WCAG 2.2)."""
    channels = [int(colour[k : k + 2], 16) / 255 for k in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    """The contrast ratio of two colours (WCAG 2.2)."""
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def test_contrast_knows_black_from_white() -> None:
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)


TEXT = [
    (ink, ground)
    for ink in ("ink", "muted", "accent")
    for ground in ("ground", "surface", "shade", "accent-shade")
] + [("on-accent", "accent")]
SHAPES = [("edge", "surface"), ("edge", "ground"), ("accent", "surface"), ("open", "surface")]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(
    ("front", "back", "least"), [(*pair, 4.5) for pair in TEXT] + [(*pair, 3.0) for pair in SHAPES]
)
def test_colours_can_be_told_apart(scheme: str, front: str, back: str, least: float) -> None:
    """WCAG 2.2 AA: 4.5 for text, 3 for what a control or a plot is made of."""
    index = ("light", "dark").index(scheme)
    colours = _colours()
    assert contrast(colours[front][index], colours[back][index]) >= least


def test_every_colour_of_the_style_is_a_named_one() -> None:
    style = (WEB / "style.css").read_text()
    rest = style.partition(":root[data-theme")[2]
    assert not re.findall(r"#[0-9a-f]{3,8}\b", rest)
    used = set(re.findall(r"var\(--([\w-]+)\)", style)) - {"sans", "mono"}
    assert used == set(_colours())


def test_fakes_are_in_order_under_the_shipped_rules(board) -> None:
    assert isinstance(shipped_rules(), Rules)
    assert check(board) == []
    divisions = [row.division for row in read_rows(board)]
    assert (divisions.count("open"), divisions.count("closed")) == (2, 22)
