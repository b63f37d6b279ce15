"""`submit wandb:ENTITY/PROJECT/RUN`: what W&B keeps of a finished run, as the folder of a run.

    result.json, samples/grid.png     of its artifact "result", which every run leaves there
    samples/samples.npz               of its artifact "samples", there where logger.samples=true was typed

What comes from there may be anybody's, and is treated as a submission is: three files are asked for by name,
none that says it has more bytes than such a file may, and none that is a reference to somewhere else (one to
file:// would be read from this machine). W&B's client takes what comes, so a file that lies about its size is
refused when it is here. They are data to whatever reads them next.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from genbench.errors import UserError, printable
from genbench.leaderboard.untrusted import IMAGE_LIMIT, RECORD_LIMIT

PREFIX = "wandb:"
"""How the address of a run at W&B begins."""

SAMPLES_LIMIT = 1 << 30
"""Bytes of the largest samples.npz that is fetched: CIFAR-10's 50,000 take 150 MB at most."""

FILES: Mapping[str, tuple[str, str, int]] = {
    "result.json": ("result", "result.json", RECORD_LIMIT),
    "samples/grid.png": ("result", "grid.png", IMAGE_LIMIT),
    "samples/samples.npz": ("samples", "samples.npz", SAMPLES_LIMIT),
}
"""The files of a run's folder: the artifact each is in, its name there, and the most bytes it may have."""

_ADDRESS = re.compile(r"wandb:[\w.-]+/[\w.-]+/[\w.-]+", re.ASCII)


def fetch(address: str, folder: Path) -> Path:
    """Puts the run at `address` into `folder`, which it makes, and returns that.

    Raises UserError, one line, where W&B cannot be asked or has not what a submission takes.
    """
    if not _ADDRESS.fullmatch(address):
        raise UserError(f"found {printable(address)[:100]}, expected wandb:ENTITY/PROJECT/RUN")
    from genbench.harness.tracking.wandb_logger import wandb_mode  # here, as few submit from there

    mode, reason = wandb_mode(None, os.environ)
    if mode != "online":
        raise UserError(
            f"{address} is at W&B, which is {mode} here ({reason}). "
            "Type wandb login, or submit the run's folder."
        )
    try:
        import wandb

        run = wandb.Api(timeout=30).run(address.removeprefix(PREFIX))
        kept = {made.type: made for made in run.logged_artifacts() if "latest" in made.aliases}
    except Exception as error:  # its client raises what it likes, of several libraries
        raise _unfetched(address, error) from error
    for name, (kind, called, limit) in FILES.items():
        if kind not in kept:
            advice = (
                "; train with logger.samples=true, or submit the run's folder" if kind == "samples" else ""
            )
            raise UserError(f"{address} has no artifact of the type {kind!r}{advice}")
        _download(address, kept[kind], called, limit, folder / name)
    return folder


def _download(address: str, artifact: Any, called: str, limit: int, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    incoming = target.parent / f"incoming-{target.stem}"
    try:
        entry = artifact.get_entry(called)
        reference, size = entry.ref, entry.size
        if reference is None and isinstance(size, int) and size <= limit:
            entry.download(root=str(incoming), skip_cache=True)
    except Exception as error:
        raise _unfetched(f"{address} ({called})", error) from error
    if reference is not None:
        raise UserError(f"{address}: {called} is a reference to another place; expected the file itself")
    if not isinstance(size, int) or size > limit:
        raise UserError(f"{address}: {called} has {size} bytes; at most {limit:,} are fetched")
    found = incoming / called
    facts = found.lstat() if found.exists() else None
    if facts is None or not stat.S_ISREG(facts.st_mode) or facts.st_size > limit:
        raise UserError(f"{address}: {called} is not the file of {size:,} bytes that W&B said it was")
    os.replace(found, target)


def _unfetched(what: str, error: Exception) -> UserError:
    reason = printable(" ".join(str(error).split())[:200]) or type(error).__name__
    return UserError(f"{what} could not be fetched from W&B ({reason}). Submit the run's folder instead.")
