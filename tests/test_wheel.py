"""The wheel carries conf/ and works from a folder that is not a checkout."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest
from documents import ROOT, pages


def test_the_source_distribution_has_what_its_documentation_and_tests_read(tmp_path):
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "sdist", "-d", str(tmp_path)],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    (archive,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(archive) as opened:
        names = {name.partition("/")[2] for name in opened.getnames()}
    for page in pages():
        assert page.name in names
        for link in page.links():
            target = link.path.resolve().relative_to(ROOT).as_posix()
            assert any(name == target or name.startswith(f"{target}/") for name in names), target
    for folder in ("conf", "tests", "sweeps", "baselines/digits", "leaderboard/submissions"):
        assert any(name.startswith(f"{folder}/") for name in names), folder


@pytest.mark.slow
def test_the_wheel_runs_from_another_folder(tmp_path):
    """Installed without its dependencies in an environment that inherits them."""
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    (wheel,) = tmp_path.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    for file in (ROOT / "conf").rglob("*.yaml"):
        assert f"genbench/conf/{file.relative_to(ROOT / 'conf').as_posix()}" in names
    assert any(name.startswith("genbench/metrics/shipped/") for name in names)
    for file in (ROOT / "genbench" / "leaderboard" / "web").iterdir():
        assert f"genbench/leaderboard/web/{file.name}" in names
    assert "genbench/leaderboard/published.json" in names
    environment = tmp_path / "environment"
    venv.create(environment, with_pip=False, symlinks=True)
    python = environment / "bin" / "python"
    site = Path(
        subprocess.run(
            [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
            check=True,
            capture_output=True,
            text=True,
        ).stdout.strip()
    )
    # The dependencies, by path; a checkout installed editable beside them is not found this way.
    (site / "inherited.pth").write_text(sysconfig.get_path("purelib") + "\n")
    subprocess.run(
        [sys.executable, "-m", "pip", "--python", str(python), "install", "--no-deps", "--quiet", str(wheel)],
        check=True,
        capture_output=True,
    )
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    clean = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    finished = subprocess.run(
        [
            environment / "bin" / "genbench", "logger=none", "device=cpu", "run_dir=run", "trainer.steps=2",
            "trainer.batch_size=4", "network.channels=8", "sampler.steps=1", "metrics.n_samples=10",
        ],
        cwd=elsewhere,
        env=clean,
        capture_output=True,
        text=True,
    )  # fmt: skip
    assert finished.returncode == 0, finished.stderr
    assert (elsewhere / "run" / "result.json").is_file()
    where = subprocess.run(
        [python, "-c", "import genbench; print(genbench.__file__)"],
        cwd=elsewhere,
        env=clean,
        capture_output=True,
        text=True,
        check=True,
    )
    assert str(site) in where.stdout
