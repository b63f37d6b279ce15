"""Shared fixtures: where real data is, and the configuration composed as the command line composes it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch


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
