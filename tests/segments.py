"""What W&B wrote down offline, as its own reader of those files says (wandb's Python has none any more)."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any


def inspect(segment: Path) -> list[dict[str, Any]]:
    """The records of an offline segment, in order."""
    program = Path(sys.executable).with_name("wandb")
    (file,) = segment.glob("run-*.wandb")
    text = subprocess.run(
        [program, "leet", "inspect", file, "--json"], check=True, capture_output=True
    ).stdout
    return [json.loads(line) for line in text.splitlines()]


def histories(records: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """The logged items, without what W&B adds."""
    items = [record["history"]["item"] for record in records if record["type"] == "history"]
    return [{name: value for name, value in item.items() if not name.startswith("_")} for item in items]


def summary(records: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """The run's summary as the last record leaves it."""
    found: dict[str, Any] = {}
    for record in records:
        if record["type"] == "summary":
            found |= record["summary"].get("update", {})
    return found
