"""The generated files of a leaderboard: README.md, index.html, result.schema.json."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from genbench.leaderboard.markdown import markdown
from genbench.leaderboard.record import schema
from genbench.leaderboard.standings import Row, read_rows, tables
from genbench.leaderboard.untrusted import write_atomically
from genbench.leaderboard.webpage import webpage

PAGE = "README.md"
WEBPAGE = "index.html"
SCHEMA = "result.schema.json"


def build(root: Path | str = "leaderboard") -> str:
    """The text of README.md for the submissions under `root`. Raises UserError naming one it cannot read."""
    return markdown(tables(read_rows(Path(root))))


def pages(root: Path, rows: Iterable[Row]) -> dict[str, str]:
    """The pages that follow from `rows`, by file name; `root` is where their sample grids are."""
    standing = tables(rows)
    return {PAGE: markdown(standing), WEBPAGE: webpage(standing, root)}


def write(root: Path | str = "leaderboard") -> list[Path]:
    """Writes the pages and the schema under `root` and returns their paths."""
    root = Path(root)
    contents = pages(root, read_rows(root)) | {SCHEMA: schema()}
    for name, text in contents.items():
        write_atomically(root / name, text.encode())
    return [root / name for name in contents]
