"""Checkpoints that somebody published: `checkpoint=PATH` or an address, and the SHA-256 that they must have.

    checkpoint=/data/step-00300000.safetensors@sha256:<64 digits>
    checkpoint=https://example.org/ddpm/step-00300000.safetensors@sha256:<64 digits>

An address needs the sum, since whoever keeps the file could put another in its place; it is fetched once,
with the seal beside it (step-….json), and kept under its sum. Nothing in either is executed.
"""

from __future__ import annotations

import os
import re
from http.client import HTTPException
from pathlib import Path

import torch

from genbench.digests import sha256_of
from genbench.errors import UserError
from genbench.harness.checkpoint import Checkpoint

_SUM = re.compile(r"[0-9a-f]{64}")


def cached() -> Path:
    """Where files are kept that were fetched or are costly to make again."""
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "genbench"


def local(checkpoint: str) -> Path:
    """The checkpoint's file on this machine, once its sum has been compared where one is given.

    Raises UserError for a sum that is none or another, and for what cannot be fetched.
    """
    place, mark, digest = checkpoint.partition("@sha256:")
    if (mark or "://" in place) and not _SUM.fullmatch(digest):
        raise UserError(
            f"checkpoint={checkpoint}: expected @sha256: and the file's 64 hexadecimal digits at its end, "
            "which an address needs. Its publisher states them; sha256sum FILE computes them."
        )
    path = _fetched(place, digest) if "://" in place else Path(place).expanduser()
    if digest and path.is_file():
        found = sha256_of(path)
        if found != digest:
            raise UserError(f"{path} is another file than checkpoint={checkpoint}: its SHA-256 is {found}.")
    return path


def _fetched(address: str, digest: str) -> Path:
    folder = cached() / "checkpoints" / digest
    name = address.rsplit("/", 1)[1]
    if Path(name).suffix != ".safetensors":
        raise UserError(f"checkpoint={address}: expected the address of a step-….safetensors.")
    seal = name.removesuffix(".safetensors") + ".json"
    folder.mkdir(parents=True, exist_ok=True)
    for each, prefix in ((name, digest), (seal, None)):
        if not (folder / each).is_file():
            url = f"{address[: -len(name)]}{each}"
            try:
                torch.hub.download_url_to_file(url, str(folder / each), hash_prefix=prefix, progress=False)
                if each == seal:
                    Checkpoint.from_json(folder / each)  # a page that says "not found" is no seal
            except (OSError, RuntimeError, ValueError, HTTPException) as error:
                (folder / each).unlink(missing_ok=True)
                raise UserError(
                    f"{url} could not be fetched ({error}). Type checkpoint=PATH of a copy."
                ) from error
    return folder / name
