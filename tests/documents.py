"""The documentation as its tests read it: pages of Markdown, and what of them can be wrong.

A page may carry files and commands that are run: `<!-- file: NAME -->` before a code block makes the block a
file of that name, `<!-- run -->` makes it a command. Both are invisible where the page is read.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from urllib.parse import unquote

ROOT = Path(__file__).resolve().parent.parent

FENCE = re.compile(r"^```.*?^```\s*$", re.MULTILINE | re.DOTALL)
SPAN = re.compile(r"`[^`\n]+`")
COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)
LINK = re.compile(r"\[(?P<text>[^\]]*)\]\((?P<target>[^)\s]+)\)")
HEADING = re.compile(r"^#{1,6} +(.+?) *$", re.MULTILINE)
FILE = re.compile(r"<!-- file: (\S+) -->\n```\w+\n(.*?)```", re.DOTALL)
RUN = re.compile(r"<!-- run -->\n```sh\n(.*?)```", re.DOTALL)
LINE = re.compile(r"^\s*(?:[A-Z_]+=\S+ )*(?:python|torchrun [^`\n]*?) -m (genbench\b[^`\n]*)$", re.MULTILINE)
TYPED = re.compile(r"`python -m (genbench\b[^`\n]*)`")


@dataclass(frozen=True)
class Link:
    """A link of a page: its text, the file it points to (the page itself for `#anchor`), and the anchor."""

    text: str
    path: Path
    anchor: str | None


@dataclass(frozen=True)
class Page:
    """A page of documentation; `name` is its path in the repository."""

    name: str

    @property
    def path(self) -> Path:
        return ROOT / self.name

    @cached_property
    def text(self) -> str:
        return self.path.read_text(encoding="utf-8")

    @cached_property
    def prose(self) -> str:
        """The text without comments and blocks of code."""
        return FENCE.sub("", COMMENT.sub("", self.text))

    def links(self, within: str | None = None) -> Iterator[Link]:
        """Links to files of the repository, pictures included; of the whole page unless of a part of it."""
        for match in LINK.finditer(self.prose if within is None else within):
            target = unquote(match["target"])
            if re.match(r"[a-z]+:", target):
                continue
            path, _, anchor = target.partition("#")
            yield Link(match["text"], (self.path.parent / path) if path else self.path, anchor or None)

    def anchors(self) -> set[str]:
        """What a link may say after #, by GitHub's rule for headings."""
        found: list[str] = []
        for heading in HEADING.findall(self.prose):
            plain = LINK.sub(lambda match: match["text"], heading).lower().replace("`", "")
            slug = re.sub(r"[^\w\- ]", "", plain).replace(" ", "-")
            before = sum(re.fullmatch(rf"{re.escape(slug)}(-\d+)?", each) is not None for each in found)
            found.append(f"{slug}-{before}" if before else slug)
        return set(found)

    def section(self, heading: str) -> str:
        """The prose under a heading, down to the next one of its level or above; empty if there is none."""
        match = re.search(rf"^(#+) {re.escape(heading)} *\n", self.prose, re.MULTILINE)
        if match is None:
            return ""
        below = self.prose[match.end() :]
        end = re.search(rf"^#{{1,{len(match[1])}}} ", below, re.MULTILINE)
        return below[: end.start()] if end else below

    def files(self) -> dict[str, str]:
        """The files of its examples, by name."""
        return dict(FILE.findall(self.text))

    def runs(self) -> list[str]:
        """The commands of its examples, as they would be typed."""
        return [command.strip() for command in RUN.findall(self.text)]

    def commands(self) -> list[str]:
        """Every `python -m genbench ...` or `torchrun ... -m genbench ...`, from `genbench` on."""
        joined = re.sub(r"\\\n\s*", "", self.text)
        return [command.strip() for command in LINE.findall(joined) + TYPED.findall(joined)]


def pages() -> list[Page]:
    """What people read: the README, CONTRIBUTING and docs/."""
    docs = sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "docs").rglob("*.md"))
    return [Page(name) for name in ("README.md", "CONTRIBUTING.md", *docs)]
