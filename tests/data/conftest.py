"""Collections of pictures in both forms."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from picture_files import write_folder, write_zip


@pytest.fixture(params=[write_zip, write_folder], ids=["zip", "folder"])
def write(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[Mapping[str, bytes]], Path]:
    """Puts files in a collection, once as a zip and once as a folder."""
    return lambda files: request.param(tmp_path / "collection", files)
