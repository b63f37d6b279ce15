"""index.html in a real browser, headless: sorting, filters, grids, plots, themes, a phone, names that attack.

Skipped where no Chromium is on PATH (Debian: `apt-get install chromium`). No page may log, throw, or ask
anything of anyone; every test that opens one ends with that.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from browser import Browser, Page, chromium
from fakes import fill, name_of

from genbench.leaderboard.page import WEBPAGE, write
from genbench.leaderboard.standings import Row, Table, read_rows, tables

pytestmark = [
    pytest.mark.skipif(chromium() is None, reason="no Chromium on PATH: apt-get install chromium"),
    pytest.mark.xdist_group("browser"),
    pytest.mark.slow,
]

HOSTILE = (
    "</script><script>window.hacked=1</script>",
    "<img src=x onerror=window.hacked=1>",
    "\"><svg onload=window.hacked=1> ' ` ${window.hacked=1} {{7*7}}",
    "javascript:window.hacked=1 &lt;b&gt; <!-- __proto__ constructor",
    "x" * 100,
)


@pytest.fixture(scope="module")
def board(tmp_path_factory) -> Path:
    root = fill(tmp_path_factory.mktemp("fakes") / "board", 48)
    write(root)
    return root


@pytest.fixture(scope="module")
def table(board: Path) -> Table:
    """The digits track without labels: closed and open rows, no published ones."""
    return next(
        t for t in tables(read_rows(board)) if t.track.dataset == "digits" and not t.track.conditional
    )


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with Browser() as running:
        yield running


@pytest.fixture
def visit(browser: Browser, board: Path) -> Iterator[Callable[..., Page]]:
    """Opens the board with choices in the address; afterwards no page has logged or asked for anything."""
    pages: list[Page] = []

    def go(hash: str = "", root: Path = board, **options: Any) -> Page:
        page = browser.open((root / WEBPAGE).resolve().as_uri() + hash, **options)
        pages.append(page)
        return page

    yield go
    for page in pages:
        assert page.messages == []
        # a page opened anew asks for itself again
        assert {address.partition("#")[0].rpartition("/")[2] for address in page.requests} == {WEBPAGE}
        page.close()


FITS = "(e => e.scrollWidth <= e.clientWidth)(document.querySelector('{}'))"

DIGITS = "#track=digits-8-2000-cdad37e4"


def listed(page: Page, division: str) -> list[str]:
    """The rows of a body, in the order shown, by their directories' names."""
    return page.run(
        f"[...document.querySelectorAll('#board tbody.{division} [data-row]')]"
        ".map(b => b.dataset.row.split('/')[1])"
    )


def names(rows: list[Row]) -> list[str]:
    return [row.place.rstrip("/").rpartition("/")[2] for row in rows]


def value(row: Row, key: str) -> float:
    metric = row.metric(key)
    if metric is not None:
        return metric.mean
    return {"nfe": row.figures.nfe, "parameters": row.figures.parameters}[key]


def of_division(table: Table, division: str) -> list[Row]:
    return [row for row in table.rows if row.division == division]


def test_rows_stand_in_the_order_of_their_ranks_with_ties_and_spreads(visit, table) -> None:
    page = visit(DIGITS)
    assert listed(page, "closed") == names(of_division(table, "closed"))
    assert listed(page, "open") == names(of_division(table, "open"))
    shown = page.run("[...document.querySelectorAll('tbody.closed td:first-child')].map(c => c.textContent)")
    assert shown == [f"{row.rank}{'= tied' if row.tied else ''}" for row in of_division(table, "closed")]
    assert any(row.tied for row in table.rows)
    assert page.run("document.querySelectorAll('tbody.closed .spread').length") >= len(shown)
    assert page.run("document.querySelector('tbody.open td').textContent") == "–"


@pytest.mark.parametrize(("key", "best_is_high"), [("fd_digits", False), ("is_digits", True), ("nfe", False)])
def test_a_click_sorts_and_another_turns_round_within_each_division(visit, table, key, best_is_high) -> None:
    page = visit(DIGITS)
    for down in (best_is_high, not best_is_high):
        page.click(f"[data-sort={key}]")
        heading = page.run(
            f"document.querySelector('[data-sort={key}]').closest('th').getAttribute('aria-sort')"
        )
        assert heading == ("descending" if down else "ascending")
        for division in ("closed", "open"):
            rows = of_division(table, division)
            expected = sorted(rows, key=lambda row: value(row, key) * (-1 if down else 1))
            assert listed(page, division) == names(expected)
        assert page.run("[...document.querySelectorAll('#board tbody')].map(b => b.className)") == [
            "closed",
            "open",
        ]
    assert f"sort={key}" in page.run("location.hash")
    assert page.run("document.activeElement.dataset.sort") == key, "the focus stays on the heading"
    page.press("Enter")
    assert ("down=1" in page.run("location.hash")) == best_is_high


def test_search_and_filters_leave_what_they_say_and_an_address_that_shows_the_same(visit, table) -> None:
    page = visit(DIGITS)
    page.click("input[type=search]")
    page.write("DDPM ada")
    found = [row for row in table.rows if row.figures.model == "ddpm" and "Ada" in row.submitter]
    assert found
    assert sorted(listed(page, "closed") + listed(page, "open")) == sorted(names(found))
    assert "q=DDPM+ada" in page.run("location.hash")
    assert page.run("document.activeElement.value") == "DDPM ada", "typing is not interrupted"
    page.wait(
        f"document.getElementById('status').textContent.startsWith('{len(found)} of {len(table.rows)} rows')"
    )

    page.run("(() => { const s = document.querySelector('[data-choice=budget] select');"
             " s.value = 'S'; s.dispatchEvent(new Event('change')); })()")  # fmt: skip
    page.settle()
    smaller = [row for row in found if row.figures.budget_class == "S"]
    address = page.run("location.hash")
    again = visit(address)
    for one in (page, again):
        assert sorted(listed(one, "closed") + listed(one, "open")) == sorted(names(smaller))
    assert again.run("document.querySelector('input[type=search]').value") == "DDPM ada"
    page.run("[...document.querySelectorAll('.filters button')].at(-1).click()")
    page.settle()
    assert page.run("location.hash") == DIGITS or page.run("location.hash") == ""
    assert len(listed(page, "closed")) == len(of_division(table, "closed"))


def test_what_somebody_drew_again_has_a_mark_for_the_eye_and_a_word_for_the_ear(visit, table) -> None:
    page = visit(DIGITS)
    marked = {row.place.rstrip("/").rpartition("/")[2]: row.marks[0] for row in table.rows if row.marks}
    assert {word for word, _ in marked.values()} == {"reproduced", "redrawn"}
    shown = page.run(
        "Object.fromEntries([...document.querySelectorAll('#board .mark')].map(m => "
        "[m.closest('[data-row]').dataset.row.split('/')[1], m.textContent]))"
    )
    ticks = {"reproduced": "✓✓", "redrawn": "✓"}
    assert shown == {name: f" {ticks[word]}, {word}," for name, (word, _) in marked.items()}
    hidden = page.run("[...document.querySelectorAll('.mark :first-child')].map(m => m.ariaHidden)")
    assert set(hidden) == {"true"}
    name, (word, told) = next(iter(marked.items()))
    page.click(f"[data-row*='{name}'] .mark")
    facts = page.run(
        "Object.fromEntries([...document.querySelectorAll('dialog dl.facts > div')].map(d => "
        "[d.children[0].textContent, d.children[1].textContent]))"
    )
    assert facts[word.capitalize()] == told
    links = page.run("[...document.querySelectorAll('dialog .files a')].map(a => a.textContent)")
    assert "verified.json" in links


def test_nothing_found_is_said(visit) -> None:
    page = visit(f"{DIGITS}&q=zzzz")
    assert "No row has all of this" in page.run("document.getElementById('board').textContent")
    assert page.run("document.querySelectorAll('.plot .empty').length") == 2


def test_a_track_is_a_link_and_published_rows_are_marked_and_apart(visit) -> None:
    page = visit(DIGITS)
    assert page.run("document.querySelectorAll('tbody.published').length") == 0
    page.click("nav a[href*=cifar10-32-50000]")
    assert page.run("document.querySelector('nav [aria-current]').textContent").startswith("cifar10")
    bodies = page.run("[...document.querySelectorAll('#board tbody')].map(b => b.className)")
    assert bodies == ["closed", "open", "published"]
    for sort in ("fid", "nfe", "model"):
        page.click(f"[data-sort={sort}]")
        assert page.run("[...document.querySelectorAll('#board tbody')].map(b => b.className)") == bodies
    ranks = page.run(
        "[...document.querySelectorAll('tbody.published td:first-child')].map(c => c.textContent)"
    )
    assert set(ranks) == {"–"}
    page.click("tbody.published [data-row]")
    text = page.run("document.getElementById('detail').textContent")
    assert "never ranked" in text
    assert "arXiv" in text


def test_a_grid_opens_by_pointer_and_by_keyboard_and_the_focus_comes_back(visit, table) -> None:
    page = visit(DIGITS)
    first = of_division(table, "closed")[0]
    page.click("tbody.closed [data-row]")
    assert page.run("document.getElementById('detail').open")
    assert page.run("document.querySelector('#detail .grid img').naturalWidth") == 272
    assert page.run("document.querySelector('#detail .grid img').alt").startswith("Grid of samples of")
    text = page.run("document.getElementById('detail').textContent")
    assert f"python -m genbench -m model={first.figures.model}" in text
    assert quote(names([first])[0]) in page.run("location.hash").replace("%2F", "/")
    address = page.run("location.hash")
    page.press("Escape")
    assert not page.run("document.getElementById('detail').open")
    assert "row=" not in page.run("location.hash")

    page.run("document.querySelectorAll('tbody.closed [data-row]')[1].focus()")
    page.press("Enter")
    assert page.run("document.getElementById('detail').open")
    assert page.run("document.getElementById('detail').contains(document.activeElement)")
    page.press("Escape")
    second = names(of_division(table, "closed"))[1]
    assert page.run("document.activeElement.dataset.row").endswith(second)
    shared = visit(address)
    assert shared.run("document.getElementById('detail').open"), "an address opens the row it was copied from"


def test_the_configuration_is_shown_whole(visit, table) -> None:
    page = visit(
        f"{DIGITS}&row={quote(table.rows[0].place.removeprefix('submissions/').rstrip('/'), safe='')}"
    )
    text = page.run("document.querySelector('#detail .config pre').textContent")
    config = json.loads(table.rows[0].config)
    assert f"lr: {config['optim']['lr']}" in text
    assert "model:\n  _target_: genbench.generators.denoising.Denoising\n" in text
    assert "betas: [0.9, 0.999]" in text
    assert "phases: {}" in text

    def leaves(value: Any) -> int:
        if isinstance(value, dict):
            return sum(leaves(inner) + 1 for inner in value.values())
        return 0

    lines = [line for line in text.splitlines() if ":" in line]
    assert len(lines) >= leaves({k: v for k, v in config.items() if k != "metrics"})


def test_the_command_is_copied_or_else_selected(visit) -> None:
    page = visit(DIGITS)
    page.click("tbody.closed [data-row]")
    command = page.run("document.querySelector('#detail .command code').textContent")
    page.run("navigator.clipboard.writeText = text => { window.copied = text; return Promise.resolve(); }")
    page.click("#detail .copy")
    assert page.run("window.copied") == command
    assert page.run("document.querySelector('#detail .copy').textContent") == "Copied"
    page.run("navigator.clipboard.writeText = () => Promise.reject(new Error('no'))")
    page.click("#detail .copy")
    assert page.run("String(getSelection())").strip() == command
    assert "Ctrl+C" in page.run("document.querySelector('#detail .copy').textContent")


def test_dark_follows_the_system_and_the_switch_and_is_remembered(visit) -> None:
    ground = "getComputedStyle(document.body).backgroundColor"
    page = visit(DIGITS)
    light = page.run(ground)
    assert visit(DIGITS, dark=True).run(ground) != light
    page.prefer("dark")
    dark = page.run(ground)
    assert dark != light
    page.prefer("light")
    assert page.run(ground) == light
    page.click("#theme")
    assert page.run(ground) == dark
    assert (
        page.run("document.getElementById('theme').getAttribute('aria-label')") == "Switch to light colours"
    )
    page.load(page.run("location.href"))
    assert page.run(ground) == dark
    page.click("#theme")
    assert page.run(ground) == light
    page.run("localStorage.clear()")


def test_a_phone_shows_four_columns_and_never_scrolls_sideways(visit) -> None:
    page = visit(DIGITS, width=360, height=740)
    fits = "document.documentElement.scrollWidth <= 360"
    assert page.run(fits)
    assert page.run(FITS.format("#board .scroll"))
    seen = (
        "[...document.querySelectorAll('#board thead th')].filter(h => h.offsetWidth)"
        ".map(h => h.innerText.trim())"
    )
    assert page.run(seen)[1:] == ["Model", "fd_digits ↓", "NFE"]
    page.run("(() => { const s = document.querySelector('[data-choice=sort] select');"
             " s.value = 'training'; s.dispatchEvent(new Event('change')); })()")  # fmt: skip
    page.settle()
    assert page.run(seen)[-1].startswith("Training"), "what it is sorted by is shown"
    page.click("tbody.closed [data-row]")
    assert page.run("document.getElementById('detail').scrollWidth <= 360")
    assert page.run("document.getElementById('detail').getBoundingClientRect().width") == 360
    page.press("Escape")
    small = page.run(
        "[...document.querySelectorAll('button, select, input, summary')].filter(e => e.offsetWidth &&"
        " (e.offsetHeight < 24 || e.offsetWidth < 24)).map(e => e.outerHTML)"
    )
    assert small == [], "WCAG 2.2, 2.5.8: targets of at least 24 by 24 pixels"


def front_of(rows: list[Row], cost: Callable[[Row], float]) -> set[tuple[float, float]]:
    """The closed rows that no other beats in both, by comparing every pair."""
    points = {(cost(row), value(row, "fd_digits")) for row in rows}
    return {p for p in points if not any(q != p and q[0] <= p[0] and q[1] <= p[1] for q in points)}


@pytest.mark.parametrize(("plot", "cost"), [(0, "nfe"), (1, "images_seen")])
def test_the_front_is_what_nothing_beats_in_both(visit, table, plot: int, cost: str) -> None:
    page = visit(DIGITS)
    shown = page.run(
        f"[...document.querySelectorAll('.plot')[{plot}].querySelectorAll('details tbody tr')]"
        ".map(r => [...r.cells].map(c => c.textContent))"
    )
    expected = front_of(of_division(table, "closed"), lambda row: getattr(row.figures, cost))
    assert len(shown) == len(expected) >= 2
    means = [float(cells[3].split(" ")[0]) for cells in shown]
    assert means == sorted(means, reverse=True)
    assert means == pytest.approx(sorted((y for _, y in expected), reverse=True), rel=0.02)  # printed digits


def test_a_plot_is_read_and_opened_by_keyboard_and_by_pointer(visit, table) -> None:
    page = visit(DIGITS)
    page.run("document.querySelector('.plot .cursor').focus()")
    label = "document.querySelector('.plot .cursor').getAttribute('aria-label')"
    page.press("Home")
    first = page.run(label)
    assert f"Dot 1 of {len(table.rows)}." in first
    page.press("ArrowRight")
    assert f"Dot 2 of {len(table.rows)}." in page.run(label)
    page.press("End")
    assert f"Dot {len(table.rows)} of {len(table.rows)}." in page.run(label)
    assert page.run("document.querySelector('.plot .said').textContent") in page.run(label)
    most = max(table.rows, key=lambda row: (row.figures.nfe, value(row, "fd_digits")))
    page.press("Enter")
    assert page.run("document.getElementById('detail-title').textContent").startswith(most.figures.model)
    page.press("Escape")
    assert page.run("document.activeElement.classList.contains('cursor')")

    drawn = page.run("document.querySelector('.plot .dots.closed').getAttribute('d').split('h0').length - 1")
    assert drawn == len(of_division(table, "closed"))
    page.click(".plot .cursor circle")
    assert page.run("document.getElementById('detail').open")


def test_the_metric_and_the_cost_of_the_plots_can_be_chosen(visit) -> None:
    page = visit(f"{DIGITS}&metric=is_digits&cost=training")
    captions = page.run("[...document.querySelectorAll('.plot figcaption > span')].map(c => c.textContent)")
    assert captions[0].startswith("is_digits ↑")
    assert "device time" in captions[1]
    assert page.run("document.activeElement === document.body")


def test_everything_that_can_be_used_has_a_name(visit) -> None:
    for address in (DIGITS, "#track=cifar10-32-published"):
        page = visit(address)
        page.click("tbody [data-row]")
        page.send("Accessibility.enable")
        nodes = [n for n in page.send("Accessibility.getFullAXTree")["nodes"] if not n["ignored"]]
        page.press("Escape")
        nodes += [n for n in page.send("Accessibility.getFullAXTree")["nodes"] if not n["ignored"]]
        roles = {
            "button",
            "link",
            "combobox",
            "searchbox",
            "textbox",
            "checkbox",
            "dialog",
            "table",
            "img",
            "region",
        }
        found = [(n["role"]["value"], n.get("name", {}).get("value", "").strip()) for n in nodes]
        used = [(role, name) for role, name in found if role in roles]
        assert len(used) > 60
        assert [role for role, name in used if not name] == []
        reached = page.run(
            "[...document.querySelectorAll('[tabindex=\"0\"], [role]')].filter(e => !e.ariaLabel"
            " && e.id !== 'status').map(e => e.outerHTML.slice(0, 80))"
        )
        assert reached == [], "what a reader can stop at, or has a role of its own, says what it is"
        assert page.run("document.documentElement.lang") == "en"
        headings = page.run("[...document.querySelectorAll('h1, main > h2')].map(h => h.tagName)")
        assert headings == ["H1", "H2"]


def test_hostile_names_are_shown_as_text_and_do_nothing(visit, tmp_path) -> None:
    def edit(index: int, value: dict[str, Any]) -> None:
        value["submitter"], value["note"] = name_of(HOSTILE[index]), HOSTILE[index] * 5

    root = fill(tmp_path / "board", len(HOSTILE), edit=edit)
    write(root)
    page = visit(root=root)
    for track in page.run("[...document.querySelectorAll('nav a')].map(a => a.getAttribute('href'))"):
        page.run(f"location.hash = {json.dumps(track)}")
        page.settle()
        for index in range(page.run("document.querySelectorAll('tbody.closed [data-row]').length")):
            page.run(f"document.querySelectorAll('tbody.closed [data-row]')[{index}].click()")
            page.settle()
            assert any(
                name * 5 in page.run("document.querySelector('#detail .note').textContent")
                for name in HOSTILE
            )
            assert page.run(FITS.format("#detail"))
            page.press("Escape")
    assert page.run("typeof window.hacked") == "undefined"
    assert page.run("document.scripts.length") == 2
    assert page.run("[...document.images].every(i => i.src.startsWith('data:image/png;base64,'))")


ADDRESSES = (
    "#track=<img src=x onerror=window.hacked=1>&q=<b>&sort=__proto__&columns=toString&row=__proto__",
    "#sort=toString&metric=constructor&cost=__proto__&division=<i>&family=%00&down=2",
    "#" + "q=" + "x" * 3000,
    "#%E0%A4%A&&&==",
)


@pytest.mark.parametrize("address", ADDRESSES, ids=range(len(ADDRESSES)))
def test_a_hostile_address_does_nothing(visit, address: str) -> None:
    page = visit(address)
    assert page.run("document.querySelectorAll('nav a').length") == 5
    assert page.run("document.querySelector('h1').textContent") == "genbench leaderboard"
    assert page.run("document.getElementById('board').textContent.length") > 20
    assert page.run("typeof window.hacked") == "undefined"


def test_the_policy_refuses_what_a_script_could_do_next(browser, board) -> None:
    """Were a script to get in all the same, it could load and send nothing."""
    page = browser.open((board / WEBPAGE).resolve().as_uri())
    page.run(
        "window.refused = [];"
        " addEventListener('securitypolicyviolation', e => refused.push(e.effectiveDirective))"
    )
    page.run("fetch('https://example.org/').catch(() => 0)")
    page.run("(() => { const s = document.createElement('script'); s.textContent = 'window.hacked = 1';"
             " document.body.append(s); document.body.setAttribute('onclick', 'window.hacked = 1');"
             " document.body.click();"
             " const i = new Image(); i.src = 'https://example.org/x.png'; document.body.append(i);"
             " document.body.setAttribute('style', 'color: red'); })()")  # fmt: skip
    page.settle()
    refused = set(page.run("refused"))
    assert refused >= {"connect-src", "script-src-elem", "script-src-attr", "img-src", "style-src-attr"}
    assert page.run("typeof window.hacked") == "undefined"
    assert len(page.messages) >= 5, "and the listening that the other tests rely on hears of it"
    page.close()
