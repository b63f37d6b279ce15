"""Samples in others' forms are whole or not there. What others read in them: tests/tasks/test_interop.py."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from genbench.harness import durable
from genbench.harness.exporting import save_npz


@pytest.mark.parametrize("operation", ["sync", "replace"])
def test_an_array_that_cannot_be_finished_leaves_the_old_one(
    operation: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = torch.zeros(3, 1, 2, 2, dtype=torch.uint8), torch.ones(5, 1, 2, 2, dtype=torch.uint8)
    path = save_npz(tmp_path / "deep" / "samples.npz", old)
    before = path.read_bytes()

    class Full(durable.Files):
        """A disk on which one operation fails."""

    def fail(*_: object) -> None:
        raise OSError("no space left on device")

    setattr(Full, operation, fail)
    with monkeypatch.context() as patched:
        patched.setattr(durable, "files", Full())
        with pytest.raises(OSError, match="no space"):
            save_npz(path, new)
    assert path.read_bytes() == before
    save_npz(path, new, torch.arange(5))
    with np.load(path) as held:
        assert held["arr_0"].shape == (5, 2, 2, 1)
        assert held["arr_1"].tolist() == [0, 1, 2, 3, 4]
    assert [each.name for each in path.parent.iterdir()] == ["samples.npz"]
