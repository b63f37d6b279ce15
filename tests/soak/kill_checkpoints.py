"""Kills a process that does nothing but save checkpoints, over and over, and reads what it left.

    python tests/soak/kill_checkpoints.py --kills 500

Each child resumes from the newest checkpoint of the one before and saves step after step until SIGKILL
reaches it at a random instant. After each kill the newest checkpoint must be readable, be exactly the
state of its step, and be no older than the last step the child had reported as saved.
"""

import argparse
import os
import random
import signal
import sys
import tempfile
import time
from pathlib import Path

import torch

from genbench.harness.checkpoint import Checkpoints


def state_of(step: int) -> dict:
    """A function of the step alone, large enough that writing it takes a while."""
    generator = torch.Generator().manual_seed(step)
    return {"step": step, "weights": [torch.randn(50_000, generator=generator) for _ in range(4)]}


def save_for_ever(folder: Path, report: int) -> None:
    """The child: saves each step three times over, scores it, and reports it through the pipe."""
    checkpoints = Checkpoints(folder)
    newest = checkpoints.latest()
    step = newest.step if newest else 0
    while True:
        step += 1
        for _ in range(3):
            checkpoints.save(step, state_of(step))
        checkpoints.rescore(step, float(step % 7))
        os.write(report, f"{step}\n".encode())


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    chance = random.Random(arguments.seed)
    reported, scenes = 0, set()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for kill in range(arguments.kills):
            reader, writer = os.pipe()
            child = os.fork()
            if child == 0:
                os.close(reader)
                save_for_ever(folder, writer)
            os.close(writer)
            time.sleep(chance.uniform(0.0, 0.12))
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            with os.fdopen(reader) as pipe:
                reported = max([reported, *map(int, pipe.read().split())])
            checkpoints = Checkpoints(folder)
            newest = checkpoints.latest()
            scenes.add(tuple(sorted(path.name.partition(".")[2] for path in folder.iterdir())))
            found = newest.step if newest else 0
            if found < reported:
                print(f"kill {kill}: step {reported} was reported saved, the newest readable one is {found}")
                return 1
            if newest:
                state, expected = checkpoints.load(newest), state_of(newest.step)
                if not all(map(torch.equal, state["weights"], expected["weights"])):
                    print(f"kill {kill}: the checkpoint of step {newest.step} is not the state of that step")
                    return 1
    print(
        f"{arguments.kills} kills, {reported} steps saved, "
        f"{len(scenes)} different scenes left behind, all readable"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
