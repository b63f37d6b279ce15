"""The generated files of a leaderboard: README.md, index.html, the JSON Schemas of what is submitted."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from genbench.leaderboard.markdown import markdown
from genbench.leaderboard.record import Result, Strict, schema
from genbench.leaderboard.standings import Row, read_rows, tables
from genbench.leaderboard.submission import Submission
from genbench.leaderboard.untrusted import write_atomically
from genbench.leaderboard.verified import Verified
from genbench.leaderboard.webpage import webpage

PAGE = "README.md"
WEBPAGE = "index.html"
SCHEMAS: dict[str, type[Strict]] = {
    "result.schema.json": Result,
    "submission.schema.json": Submission,
    "verified.schema.json": Verified,
}


def build(root: Path | str = "leaderboard") -> str:
    """The text of README.md for the submissions under `root`. Raises UserError naming one it cannot read."""
    return markdown(tables(read_rows(Path(root))))


def pages(root: Path, rows: Iterable[Row]) -> dict[str, str]:
    """The pages that follow from `rows`, by file name; `root` is where their sample grids are."""
    standing = tables(rows)
    return {PAGE: markdown(standing), WEBPAGE: webpage(standing, root)}


def schemas() -> dict[str, str]:
    """The JSON Schemas, by file name."""
    return {name: schema(kind) for name, kind in SCHEMAS.items()}


def write(root: Path | str = "leaderboard") -> list[Path]:
    """Writes the pages and the schemas under `root` and returns their paths."""
    root = Path(root)
    contents = pages(root, read_rows(root)) | schemas()
    for name, text in contents.items():
        write_atomically(root / name, text.encode())
    return [root / name for name in contents]
