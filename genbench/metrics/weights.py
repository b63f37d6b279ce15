"""Weights of published networks: where they lie, whether they can be had, and reading them safely.

A file is fetched once into torch's hub directory, or given by the user. Nothing in it is executed: tensors
are read with `weights_only=True`.
"""

from __future__ import annotations

import hashlib
import io
import os
import pickle
import tempfile
import urllib.request
import warnings
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from genbench.errors import UserError


@dataclass(frozen=True)
class Weights:
    """One file of weights.

    title: the network's, in messages; url: where its publisher keeps it; digits: how its SHA-256 begins, None
    where the publisher does not say; given: the user's own file, instead; name: what it is called in the hub
    directory, the last part of the address where not given.
    """

    title: str
    url: str
    digits: str | None = None
    given: Path | None = None
    name: str | None = None

    @property
    def path(self) -> Path:
        """Where the weights are, or will be once they have been fetched."""
        if self.given is not None:
            return self.given.expanduser()
        return Path(torch.hub.get_dir()) / "checkpoints" / (self.name or self.url.rsplit("/", 1)[1])

    def obstacle(self, timeout: float = 10.0) -> str | None:
        """Why the weights cannot be had, or None where they are at hand or can be fetched.

        Without a file it asks the server, for at most `timeout` seconds.
        """
        if self.path.is_file():
            return None
        if self.given is not None:
            return f"the file metrics.weights={self.given} does not exist"
        error = unreachable(self.url, timeout)
        return error and f"{self.path} does not exist and {self.url} cannot be reached ({error})"

    def demand(self) -> None:
        """Raises UserError, with what to type, where the weights cannot be had."""
        obstacle = self.obstacle()
        if obstacle:
            raise UserError(
                f"{self.title}'s weights are missing: {obstacle}. Fetch {self.url} elsewhere and "
                "type metrics.weights=PATH, or score with the data set's extractor (metrics=<dataset>)"
            )

    def read(self) -> tuple[bytes, str]:
        """The file, fetched first if need be, and its SHA-256. Raises UserError where it cannot be had."""
        if self.given is None and not self.path.is_file():
            self._fetch()
        if not self.path.is_file():
            raise UserError(f"{self.title}'s weights are missing: {self.obstacle()}")
        blob = self.path.read_bytes()
        return blob, hashlib.sha256(blob).hexdigest()

    def _fetch(self) -> None:
        """Downloads the file in one step."""
        path = self.path
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, suffix=".part")
        os.close(handle)
        try:
            torch.hub.download_url_to_file(self.url, name, hash_prefix=self.digits, progress=False)
            os.replace(name, path)
        except (OSError, RuntimeError) as error:
            raise UserError(
                f"{self.title}'s weights could not be fetched from {self.url} ({error}); fetch the file by "
                "other means and type metrics.weights=PATH"
            ) from error
        finally:
            Path(name).unlink(missing_ok=True)


def unreachable(url: str, timeout: float = 10.0) -> str | None:
    """Why a server does not answer for `url`, asked for at most `timeout` seconds; None where it does."""
    try:
        with urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=timeout):
            return None
    except (OSError, ValueError) as error:  # URLError and timeouts are OSErrors
        return str(error) or type(error).__name__


def state_dict(blob: bytes, path: Path) -> dict[str, Tensor]:
    """Named tensors from a torch.save file, read without executing anything in it."""
    try:
        with warnings.catch_warnings():
            # A TorchScript archive is announced with a warning, and then refused: it is a program.
            warnings.simplefilter("ignore")
            state = torch.load(io.BytesIO(blob), map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError) as error:
        raise UserError(
            f"{path} cannot be read as plain weights ({str(error).splitlines()[0]}); expected a state dict "
            "of tensors written by torch.save"
        ) from error
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise UserError(f"{path} holds {type(state).__name__}, expected a state dict of tensors")
    return dict(state)
