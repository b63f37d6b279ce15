"""kill -9 at random moments of a real run; resumed each time, it must end as an undisturbed one does.

    python tests/soak/kill_runs.py --kills 20

The command is genbench's own, on digits with a checkpoint every few steps. The undisturbed run takes the same
steps in one sitting; at the end weights, averages and optimiser states of both are compared bit for bit, and
each logged step must stand in metrics.jsonl exactly once.
"""

from __future__ import annotations

import argparse
import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from genbench.harness.checkpoint import Checkpoints

STEPS = 120
COMMAND = [
    sys.executable, "-m", "genbench", "logger=none", "device=cpu", f"trainer.steps={STEPS}",
    "trainer.batch_size=16", "trainer.checkpoint_every=3", "trainer.log_every=1", "sampler.steps=2",
    "metrics.n_samples=20", "network.channels=16", "network.dropout=0.1",
]  # fmt: skip


def tensors(folder: Path) -> dict[str, torch.Tensor]:
    """Every tensor of a run's last checkpoint, by name."""
    checkpoints = Checkpoints(folder / "checkpoints")
    newest = checkpoints.latest()
    if newest is None:
        raise SystemExit(f"{folder} has no readable checkpoint")
    found: dict[str, torch.Tensor] = {"step": torch.tensor(newest.step)}

    def walk(name: str, value: object) -> None:
        if isinstance(value, dict):
            for key, inner in value.items():
                walk(f"{name}/{key}", inner)
        elif isinstance(value, list | tuple):
            for key, inner in enumerate(value):
                walk(f"{name}/{key}", inner)
        elif isinstance(value, torch.Tensor):
            found[name] = value

    walk("", checkpoints.load(newest))
    return found


def logged_steps(folder: Path) -> list[int]:
    """The steps of metrics.jsonl that have a loss, in the file's order."""
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [row["step"] for row in rows if "denoiser/loss" in row]


def main() -> int:
    """0 where the killed run ends as the undisturbed one does."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    chance = random.Random(arguments.seed)
    with tempfile.TemporaryDirectory() as temporary:
        whole, killed = Path(temporary) / "whole", Path(temporary) / "killed"
        subprocess.run([*COMMAND, f"run_dir={whole}"], check=True, capture_output=True)
        steps = []
        for kill in range(arguments.kills):
            child = subprocess.Popen(
                [*COMMAND, f"run_dir={killed}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            )
            # Not before it trains, so that kills fall on the loop and its checkpoints more than on imports.
            began, before = time.monotonic(), _size(killed)
            while _size(killed) == before and time.monotonic() - began < 60 and child.poll() is None:
                time.sleep(0.02)
            time.sleep(chance.uniform(0.0, 0.6))
            child.send_signal(signal.SIGKILL)
            child.wait()
            newest = Checkpoints(killed / "checkpoints").latest()
            steps.append(newest.step if newest else 0)
            print(f"kill {kill + 1}: the newest readable checkpoint is of step {steps[-1]}", flush=True)
        subprocess.run([*COMMAND, f"run_dir={killed}"], check=True, capture_output=True)
        left, right = tensors(whole), tensors(killed)
        different = [
            name for name in left.keys() | right.keys() if not _same(left.get(name), right.get(name))
        ]
        if different:
            print(f"{len(different)} of {len(left)} tensors differ, such as {sorted(different)[0]}")
            return 1
        if logged_steps(killed) != list(range(1, STEPS + 1)):
            print("metrics.jsonl of the killed run does not hold every step exactly once")
            return 1
    print(f"{arguments.kills} kills at steps {steps}: all {len(left)} tensors are bit-identical")
    return 0


def _size(folder: Path) -> int:
    file = folder / "metrics.jsonl"
    return file.stat().st_size if file.is_file() else 0


def _same(left: torch.Tensor | None, right: torch.Tensor | None) -> bool:
    return left is not None and right is not None and torch.equal(left, right)


if __name__ == "__main__":
    sys.exit(main())
