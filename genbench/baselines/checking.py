"""Is what is recorded what would be made today: the page from its records, the recipes from their names?"""

from __future__ import annotations

from pathlib import Path

from genbench.baselines.excerpt import filled
from genbench.baselines.page import page
from genbench.baselines.recipes import composing, departures
from genbench.baselines.shelf import README, baselines

STALE = "is not what the records give. Type: python -m genbench.baselines build"


def problems(root: Path) -> list[str]:
    """One line for each thing that is not; none where all is well."""
    found = []
    file = root / README
    if not file.is_file() or file.read_text(encoding="utf-8") != page(root):
        found.append(f"{file} {STALE}")
    written = root.absolute().parent / README
    if written.is_file() and (text := written.read_text(encoding="utf-8")) != filled(text, root):
        found.append(f"the results in {written} {STALE}")
    with composing():
        for baseline in baselines(root):
            typed = [f"experiment={baseline.name}", f"seed={baseline.first.training.seed}"]
            lines = departures(baseline.first.config, typed)
            found += [f"{baseline.name}: {line}; record it again" for line in lines]
    return found
