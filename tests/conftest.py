"""Shared fixtures: where real data is, and the configuration composed as the command line composes it."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

# Tests run in several processes; each keeps to one thread, and so do the programs it starts.
os.environ["OMP_NUM_THREADS"] = "1"
# Triton decides at import whether its kernels are interpreted; a GPU runs them as they are.
if not Path("/dev/nvidiactl").exists():
    os.environ["TRITON_INTERPRET"] = "1"

import pytest
import torch
from hydra import initialize_config_dir
from hypothesis import settings

from genbench import cli
from genbench.configuration import conf_dir

# How long an example takes says how busy the machine is.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if torch.cuda.is_available():
        return
    skip = pytest.mark.skip(reason="needs a CUDA device, and there is none here")
    for item in items:
        if "gpu" in item.keywords:
            item.add_marker(skip)


@pytest.fixture(scope="session")
def data_root() -> Path:
    """The folder of real data sets that GENBENCH_DATA names; tests that need it skip where it is not set."""
    folder = os.environ.get("GENBENCH_DATA")
    if not folder or not Path(folder).is_dir():
        pytest.skip("GENBENCH_DATA does not name a folder of data sets")
    return Path(folder)


@pytest.fixture(scope="session")
def compose() -> Callable[..., dict[str, Any]]:
    """compose("model=ddpm", ...): the resolved configuration that the command line would run.

    typed: overrides that must be of use, as all are that somebody types.
    """
    cli.register_resolvers()

    def composed(*overrides: str, typed: Sequence[str] = ()) -> dict[str, Any]:
        with initialize_config_dir(str(conf_dir()), version_base="1.3"):
            return cli.composed(overrides, typed)

    return composed
