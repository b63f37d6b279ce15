"""leaderboard/README.md: a table for each track, then what others published, as Markdown.

GitHub shows no more than the first half megabyte of a Markdown file, so a table ends after `SHOWN_ROWS` rows
and says how many more there are; index.html shows all.

What submitters wrote (names, notes) is data: every character that Markdown or HTML could act on is escaped.
(A metric's name needs no escaping: the record admits a-z, 0-9, "_" and one "@" with a number.)
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from operator import attrgetter
from pathlib import Path

from genbench.leaderboard.numerals import amount, duration, figure, number, own_spread, seconds
from genbench.leaderboard.published import BETTER, EVIDENCE, published
from genbench.leaderboard.standings import Table
from genbench.leaderboard.verified import MARKS

SHOWN_ROWS = 500
"""Rows of one table; a row takes about 300 bytes."""


def markdown(tables: Sequence[Table]) -> str:
    """The text of README.md."""
    import jinja2  # here, so that submitting and recording do without a template engine

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=False,  # Markdown, not HTML: the filter `cell` escapes for both
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        cell=cell,
        figure=figure,
        own_spread=own_spread,
        number=number,
        amount=amount,
        duration=duration,
        seconds=seconds,
    )
    references = [(about, list(rows)) for about, rows in groupby(published(), key=attrgetter("about"))]
    return environment.get_template("page.md.j2").render(
        tables=tables,
        shown_rows=SHOWN_ROWS,
        marks=MARKS,
        references=references,
        reference_metrics=BETTER,
        evidence=EVIDENCE,
    )


_SAFE = frozenset(" ,;'()/=+%")


def cell(text: str) -> str:
    """`text` as Markdown that shows just these characters, in one line, inside a table or out of one.

    Letters, digits and harmless punctuation stay; "_", "-" and "." are kept between letters and digits
    only; all else becomes a numeric character reference, which Markdown shows and never acts on.
    """
    shown = []
    for position, character in enumerate(text):
        around = text[max(position - 1, 0) : position] + text[position + 1 : position + 2]
        inside = len(around) == 2 and around.isalnum()
        if character.isspace():
            shown.append(" ")
        elif character.isalnum() or character in _SAFE or (character in "_-." and inside):
            shown.append(character)
        else:
            shown.append(f"&#{ord(character)};")
    return "".join(shown).replace("www.", "www&#46;")  # GitHub makes a link of it otherwise
