"""What a command line does and says; in this process, which saves importing torch each time."""

from __future__ import annotations

import contextlib
import io
import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from hydra.core.global_hydra import GlobalHydra

from genbench import cli


def environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "WANDB_MODE": "offline"}


@dataclass
class Finished:
    returncode: int
    stdout: str
    stderr: str


def genbench(*arguments: str, check: bool = True, ranks: int = 1) -> Finished:
    """What the command line does and says; in this process, which saves importing torch each time."""
    finished = _in_process(arguments) if ranks == 1 else _launched(arguments, ranks)
    if check:
        assert finished.returncode == 0, finished.stdout + finished.stderr
    return finished


def _in_process(arguments: Sequence[str]) -> Finished:
    out, err, status = io.StringIO(), io.StringIO(), 0
    typed, sys.argv = sys.argv, ["genbench", *arguments]
    GlobalHydra.instance().clear()
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            cli.main()
    except SystemExit as end:
        status = int(end.code or 0)
    finally:
        sys.argv = typed
    return Finished(status, out.getvalue(), err.getvalue())


def _launched(arguments: Sequence[str], ranks: int) -> Finished:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    launcher = [sys.executable, "-m", "torch.distributed.run", f"--nproc_per_node={ranks}"]
    launcher += ["--master_addr=127.0.0.1", f"--master_port={port}", "-m", "genbench"]
    finished = subprocess.run([*launcher, *arguments], capture_output=True, text=True, env=environment())
    return Finished(finished.returncode, finished.stdout, finished.stderr)
