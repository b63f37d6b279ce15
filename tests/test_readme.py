"""The README's own generator, run as it stands there."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from genbench.leaderboard.record import Result

README = Path(__file__).parent.parent / "README.md"
FILE = re.compile(r"<!-- file: (\S+) -->\n```\w+\n(.*?)```", re.DOTALL)
RUN = re.compile(r"<!-- run -->\n```sh\n(.*?)```", re.DOTALL)


def test_the_readmes_generator_trains_samples_and_is_recorded(tmp_path):
    text = README.read_text(encoding="utf-8")
    files = dict(FILE.findall(text))
    assert set(files) == {"mygen.py", "myconf/model/mmd.yaml"}
    assert files["mygen.py"].count("\n") <= 40
    for name, contents in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(contents, encoding="utf-8")
    command = RUN.findall(text)[0].strip()
    # The same command, made shorter and quieter.
    command = command.replace("python -m genbench", f"{sys.executable} -m genbench")
    command = command.replace("trainer.steps=3000", "trainer.steps=300")
    command += " logger=none device=cpu run_dir=run metrics.n_samples=500"
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    finished = subprocess.run(
        command, shell=True, cwd=tmp_path, capture_output=True, text=True, env=environment
    )
    assert finished.returncode == 0, finished.stdout + finished.stderr
    result = Result.read(tmp_path / "run" / "result.json")
    assert (result.model.name, result.sampling.sampler, result.sampling.nfe_max) == ("mmd", "decode", 1)
    # An untrained decoder of these sizes stands far above 20; a few hundred steps must show.
    assert result.metrics[0].value < 20
