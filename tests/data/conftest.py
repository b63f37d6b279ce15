"""Collections in both forms, and where the real data are."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from picture_files import write_folder, write_zip


@pytest.fixture(params=[write_zip, write_folder], ids=["zip", "folder"])
def write(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[Mapping[str, bytes]], Path]:
    """Puts files in a collection, once as a zip and once as a folder."""
    return lambda files: request.param(tmp_path / "collection", files)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real data sets, where the environment names one."""
    folder = os.environ.get("GENBENCH_DATA")
    if not folder:
        pytest.skip("GENBENCH_DATA does not name a folder with the real data sets")
    return Path(folder)
