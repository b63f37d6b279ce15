"""Where runs live when nobody says."""

from __future__ import annotations

from datetime import datetime
from types import SimpleNamespace

from genbench.harness import rundir


def test_runs_that_begin_in_one_second_have_folders_of_their_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = {"dataset": {"name": "digits"}, "model": {"name": "ddpm"}, "seed": 0}
    monkeypatch.setattr(rundir, "datetime", SimpleNamespace(now=lambda: datetime(2026, 1, 2, 3, 4, 5)))
    found = []
    for _ in range(3):
        found.append(rundir.default_run_dir(config, None))
        found[-1].mkdir(parents=True)
    assert [path.name[-5:] for path in found] == ["seed0", "ed0-2", "ed0-3"]
