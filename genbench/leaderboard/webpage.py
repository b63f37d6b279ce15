"""leaderboard/index.html: the leaderboard as one file that opens in any browser and loads nothing.

The page is a shell (web/index.html.j2), a style, a script and the data as JSON, which the script makes tables
and plots of. Its content-security policy admits this style, this script (by their SHA-256) and pictures that
are part of the page; nothing can be loaded, sent or run beside them. What submitters wrote is data: it stands
in the JSON alone, where "<", ">" and "&" are escaped, and the script writes it as text, never as markup.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from genbench.leaderboard.payload import payload
from genbench.leaderboard.standings import Table

WEB = Path(__file__).parent / "web"

SCRIPTS = (
    "elements.js",
    "state.js",
    "columns.js",
    "filters.js",
    "table.js",
    "scales.js",
    "plot.js",
    "detail.js",
    "main.js",
)
"""The parts of the page's script, in the order in which they are joined."""

LINES = frozenset({"tracks", "rows", "published", "nodes"})
"""Lists of the data with a line for each element, so that a new submission is a small difference in git."""


def webpage(tables: Sequence[Table], root: Path) -> str:
    """The text of index.html; the tables' sample grids are read from under `root`."""
    import jinja2  # here, so that submitting and recording do without a template engine

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(WEB),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    style = "\n" + (WEB / "style.css").read_text("utf-8")
    parts = "\n".join((WEB / name).read_text("utf-8") for name in SCRIPTS)
    script = f'\n"use strict";\n(() => {{\n{parts}\n}})();\n'
    return environment.get_template("index.html.j2").render(
        policy=policy(script, style), style=style, script=script, data=encode(payload(tables, root))
    )


def policy(script: str, style: str) -> str:
    """The content-security policy of a page with just this script and style."""
    return "; ".join(
        (
            "default-src 'none'",
            f"script-src '{_digest(script)}'",
            f"style-src '{_digest(style)}'",
            "img-src data:",
            "base-uri 'none'",
            "form-action 'none'",
        )
    )


def _digest(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def encode(data: dict[str, Any]) -> str:
    """JSON that may stand in a script element: ASCII, without "<", ">" and "&"."""
    text = _encode(data)
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def _encode(value: Any) -> str:
    if not isinstance(value, dict):
        return _compact(value)
    return "{" + ",".join(f"{_compact(key)}:{_entry(key, inner)}" for key, inner in value.items()) + "}"


def _entry(key: str, value: Any) -> str:
    if key not in LINES:
        return _compact(value)
    # Within a node a mapping is a submitter's configuration, whose keys mean nothing here.
    encode_one = _encode if key == "tracks" else _compact
    return "[\n" + ",\n".join(map(encode_one, value)) + "\n]"


def _compact(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), allow_nan=False)
