"""Checkpoints that survive being killed: atomic, checksummed, and never unpickled.

On the disk one checkpoint is two files,

    step-00001000.safetensors   every tensor of the state, and the skeleton that holds them together
    step-00001000.json          the seal: step, score, config hash, and the SHA-256 of the first file

each written under a temporary name and renamed, the seal last. A checkpoint exists when its seal is there and
the checksum holds; a process killed at any instant therefore leaves the one before it readable.
"""

from __future__ import annotations

import datetime
import hashlib
import json
import logging
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import safetensors
import torch

from genbench.digests import sha256_of
from genbench.errors import UserError
from genbench.harness import durable, statefile
from genbench.harness.statefile import State, flatten, unflatten

__all__ = ["Checkpoint", "Checkpoints", "State", "flatten", "unflatten"]

FORMAT_VERSION = 1
_SEAL = re.compile(r"step-(\d+)\.json")
_log = logging.getLogger(__name__)


# ------------------------------------------------------------------------------------------ one checkpoint


@dataclass(frozen=True)
class Checkpoint:
    """The seal of one checkpoint: where its tensors are and what they must hash to.

    score: lower is better, None where it was not evaluated; created: UTC, ISO 8601;
    sha256: of the tensor file.
    """

    path: Path
    step: int
    sha256: str
    score: float | None = None
    config_hash: str = ""
    created: str = ""

    @property
    def seal(self) -> Path:
        """The JSON file."""
        return self.path.with_name(f"step-{self.step:08d}.json")

    def to_json(self) -> str:
        """The seal's text; its last entry is the hash of the others."""
        body = {
            "format_version": FORMAT_VERSION,
            "step": self.step,
            "tensors": self.path.name,
            "sha256": self.sha256,
            "score": self.score,
            "config_hash": self.config_hash,
            "created": self.created,
        }
        return json.dumps({**body, "seal": _digest(body)}, indent=1) + "\n"

    @classmethod
    def from_json(cls, path: Path) -> Checkpoint:
        """Reads a seal. Raises ValueError or OSError saying what is wrong with it."""
        try:
            body = json.loads(path.read_bytes())
            version, seal = body["format_version"], body.pop("seal", None)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"{path.name} is not a complete checkpoint seal") from error
        if version != FORMAT_VERSION:
            raise ValueError(
                f"{path.name} has format version {version}, this genbench reads {FORMAT_VERSION}"
            )
        if seal != _digest(body):
            raise ValueError(f"{path.name} was changed after it was written (its own checksum does not hold)")
        tensors = path.with_name(Path(body["tensors"]).name)
        return cls(tensors, body["step"], body["sha256"], body["score"], body["config_hash"], body["created"])

    def verify(self) -> None:
        """Raises ValueError or OSError unless the tensor file is the one that was sealed."""
        found = sha256_of(self.path)
        if found != self.sha256:
            raise ValueError(
                f"{self.path.name} is damaged: its SHA-256 is {found[:12]}…, sealed was {self.sha256[:12]}…"
            )


def _digest(body: Mapping[str, Any]) -> str:
    """SHA-256 of a JSON object, whatever its layout on the disk."""
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()


# -------------------------------------------------------------------------------------- a run's checkpoints


class Checkpoints:
    """The checkpoints of one run, in one folder that one process writes to.

    `keep` is how many of the latest are kept; the best by score is kept besides.
    """

    def __init__(self, folder: Path, keep: int = 2) -> None:
        if keep < 1:
            raise UserError(f"keep is {keep}; at least one checkpoint must be kept, so type keep=1 or more")
        self.folder = Path(folder)
        self.keep = keep

    def save(self, step: int, state: State, *, score: float | None = None, config_hash: str = "") -> Path:
        """Writes a checkpoint and deletes those no longer wanted; returns the path of its seal.

        The step may have been saved before: the old checkpoint stays valid until the new seal replaces it.
        Raises OSError (no space left, say) with every earlier checkpoint intact, TypeError as `flatten` does.
        """
        chunks = statefile.serialise(state)
        self.folder.mkdir(parents=True, exist_ok=True)
        self._sweep()
        path = self._free_path(step)
        sha256 = durable.replace_file(path, chunks)
        created = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        checkpoint = Checkpoint(path, step, sha256, _finite(score), config_hash, created)
        durable.replace_file(checkpoint.seal, [checkpoint.to_json().encode()])
        self._prune(checkpoint)
        self._sweep()
        return checkpoint.seal

    def rescore(self, step: int, score: float) -> None:
        """Gives a saved checkpoint the score that was only found afterwards; the tensors are not rewritten.

        Raises UserError where there is no readable checkpoint of that step.
        """
        seal = self.folder / f"step-{step:08d}.json"
        try:
            checkpoint = replace(Checkpoint.from_json(seal), score=_finite(score))
        except (OSError, ValueError) as error:
            raise UserError(
                f"cannot score the checkpoint of step {step} in {self.folder}: {error}"
            ) from error
        durable.replace_file(seal, [checkpoint.to_json().encode()])

    def latest(self) -> Checkpoint | None:
        """The newest checkpoint that is complete and whose checksum holds; None where there is none.

        Broken ones are passed over, with a warning in the log.
        """
        return self._first_sound(sorted(self._sealed(warn=True), key=lambda c: -c.step))

    def best(self) -> Checkpoint | None:
        """The sound checkpoint with the lowest score (the newer one at a tie); None where none has one."""
        scored = [c for c in self._sealed(warn=True) if c.score is not None]
        return self._first_sound(sorted(scored, key=_by_score))

    def load(self, checkpoint: Checkpoint, device: str | torch.device = "cpu") -> State:
        """The state of a checkpoint, bit for bit, on `device`. Raises UserError if it is broken.

        `load_state_dict` moves each tensor where its owner wants it, so the default suits
        any training device.
        """
        try:
            checkpoint.verify()
            return statefile.read(checkpoint.path, device)
        except (OSError, ValueError, KeyError, TypeError, safetensors.SafetensorError) as error:
            raise UserError(
                f"the checkpoint {checkpoint.path} cannot be read: {error}. "
                "Choose another one, or leave checkpoint= out to start from the newest that is sound"
            ) from error

    @staticmethod
    def read(path: Path, device: str | torch.device = "cpu") -> State:
        """The state at `path`, which is either file of a checkpoint; UserError says what is wrong."""
        path = Path(path)
        if path.is_dir():
            raise UserError(f"checkpoint={path} is a folder; name one file in it, step-….safetensors")
        seal = path.with_name(path.name.split(".")[0] + ".json")
        if not path.is_file() or not seal.is_file():
            missing = path if not path.is_file() else seal
            raise UserError(
                f"checkpoint={path} needs a checkpoint's two files, step-….safetensors and step-….json, "
                f"side by side; there is no {missing}"
            )
        try:
            checkpoint = Checkpoint.from_json(seal)
        except (OSError, ValueError) as error:
            raise UserError(f"checkpoint={path} cannot be read: {error}; choose another one") from error
        if path not in (seal, checkpoint.path):
            raise UserError(
                f"checkpoint={path} is not the file that {seal.name} seals; type checkpoint={checkpoint.path}"
            )
        return Checkpoints(path.parent).load(checkpoint, device)

    def _sealed(self, warn: bool = False) -> list[Checkpoint]:
        """Every checkpoint with a readable seal; the tensors are not looked at."""
        found = []
        for seal in self.folder.glob("step-*.json") if self.folder.is_dir() else ():
            if not _SEAL.fullmatch(seal.name):
                continue
            try:
                found.append(Checkpoint.from_json(seal))
            except (OSError, ValueError) as error:
                if warn:
                    _log.warning("checkpoint passed over: %s", error)
        return found

    @staticmethod
    def _first_sound(candidates: Sequence[Checkpoint]) -> Checkpoint | None:
        for checkpoint in candidates:
            try:
                checkpoint.verify()
                return checkpoint
            except (OSError, ValueError) as error:
                _log.warning("checkpoint of step %d passed over: %s", checkpoint.step, error)
        return None

    def _free_path(self, step: int) -> Path:
        """A tensor file's name that no seal refers to, so that saving a step again endangers nothing."""
        plain = self.folder / f"step-{step:08d}.safetensors"
        taken = {checkpoint.path for checkpoint in self._sealed()}
        return plain.with_name(f"{plain.stem}.again.safetensors") if plain in taken else plain

    def _sweep(self) -> None:
        """Deletes what no seal refers to: temporaries of a killed process, tensors replaced or never sealed.

        A tensor file beside an unreadable seal is left alone: a newer genbench may have written it.
        """
        sealed = {checkpoint.seal: checkpoint.path for checkpoint in self._sealed()}
        for path in sorted(self.folder.glob("step-*")):
            seal = path.with_name(path.name.split(".")[0] + ".json")
            unsealed = sealed.get(seal) != path and (seal in sealed or not seal.exists())
            orphan = path.suffix == ".safetensors" and unsealed
            if orphan or path.name.endswith(durable.PARTIAL):
                durable.files.remove(path)

    def _prune(self, saved: Checkpoint) -> None:
        """Deletes all but the last `keep` up to `saved`, and the best; of each the seal goes first."""
        past = sorted((c for c in self._sealed() if c.step <= saved.step), key=lambda c: -c.step)
        scored = sorted((c for c in past if c.score is not None), key=_by_score)
        for checkpoint in past[self.keep :]:
            if checkpoint not in scored[:1]:
                durable.files.remove(checkpoint.seal)
                durable.files.remove(checkpoint.path)


def _by_score(checkpoint: Checkpoint) -> tuple[float, int]:
    """Lowest score first, then newest."""
    return (math.inf if checkpoint.score is None else checkpoint.score, -checkpoint.step)


def _finite(score: float | None) -> float | None:
    """A score that can be compared; one that is not finite counts as none."""
    return float(score) if score is not None and math.isfinite(score) else None
