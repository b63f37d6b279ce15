"""Rows of recorded results inside pages that people write, such as README.md: filled in, never typed.

A page says which experiments it wants, and everything up to the end mark is made from their records:

    <!-- recorded: digits/ddpm digits/edm -->
    <!-- end -->
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from genbench.baselines.page import Row, score
from genbench.baselines.shelf import CURVES, baselines
from genbench.errors import UserError
from genbench.leaderboard.numerals import amount, duration

WANTED = re.compile(r"(<!-- recorded: ([^>]*?) -->\n).*?(<!-- end -->)", re.DOTALL)
HEAD = """\
| `experiment=` | parameters | sampler, NFE | distance ↓ | of the way | bits/dim ↓ | training | seeds |
|:--|--:|:--|--:|--:|--:|--:|--:|
"""


def filled(text: str, root: Path) -> str:
    """`text` with the rows that it asks for, of the records under `root`.

    Raises UserError where an experiment is asked for that is not recorded.
    """
    known = {baseline.name: Row(baseline) for baseline in baselines(root)}
    return WANTED.sub(lambda found: found[1] + _table(found[2].split(), known, root) + found[3], text)


def _table(names: Sequence[str], known: Mapping[str, Row], root: Path) -> str:
    if missing := [name for name in names if name not in known]:
        raise UserError(f"a page wants {', '.join(missing)}, of which there is no record in {root}")
    rows = sorted((known[name] for name in names), key=lambda row: row.rank)
    return HEAD + "".join(_line(row, root) for row in rows)


def _line(row: Row, root: Path) -> str:
    shown, name = row.baseline.figures, row.baseline.name
    cells = [
        f"[`{name}`]({root.name}/{name}/{CURVES})",
        amount(shown.parameters),
        f"{shown.sampler}, {shown.nfe:.4g}",
        score(row.distance),
        row.share,
        score(row.bits),
        duration(shown.device_seconds),
        str(len(shown.training_seeds)),
    ]
    return f"| {' | '.join(cells)} |\n"
