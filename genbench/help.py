"""`python -m genbench --help`, from the files of conf/ themselves; answers without torch."""

from __future__ import annotations

import re
import textwrap
from itertools import takewhile
from pathlib import Path

USAGE = """\
genbench: train, sample, score and compare image generators.

usage: python -m genbench [TASK [RUN ...]] [NAME=VALUE ...]          (installed: genbench ...)

Examples
  python -m genbench                                    a DDPM on real digits, on a CPU, in minutes
  python -m genbench model=ddpm dataset=cifar10         the reference recipe
  python -m genbench sampler=ddim sampler.steps=20 run_dir=runs/a
  python -m genbench -m dataset=digits seed=0,1,2       three training seeds, one after the other
  python -m genbench task=evaluate run_dir=runs/a sampler=ancestral sampler.steps=1000
  python -m genbench task=sample run_dir=runs/a n=64    images to runs/a/samples/
  python -m genbench task=score images=DIR|ZIP|NPZ|NPY dataset=cifar10
  python -m genbench compare runs/a runs/b              settings, scores, cost, and a picture
  python -m genbench list model sampler                 what can be chosen, a line each
  python -m genbench task=solvers run_dir=runs/a        every sampler on a run; without run_dir on an oracle
  python -m genbench.leaderboard submit runs/a runs/b runs/c
"""

SETTINGS = """\
Settings most often changed
  seed=0  device=auto|cpu|cuda  run_dir=PATH  data_root=PATH  budget=20m  conditional=true
  trainer.steps=N  trainer.batch_size=N  trainer.precision=auto|fp32|bf16  trainer.compile=true
  sampler.steps=N  sampler.batch_size=N  sampler.precision=auto|fp32|bf16  sampler.compile=true
  metrics.n_samples=N  metrics.weights=PATH  threads=N

More
  --cfg job         print everything the run would use, and stop
  -m, --multirun    run every combination of comma-separated values
  --hydra-help      the options of Hydra, which composes the configuration from conf/
"""

HEADINGS = {
    "task": "what to do",
    "model": "what is trained",
    "dataset": "on what",
    "sampler": "how images are drawn",
    "metrics": "how they are scored: one or several, [a,b]",
    "measures": "what is computed besides FD and IS: one or several",
    "experiment": "named recipes",
}
"""Groups shown first, with what they mean; the rest follow by name."""

HIDDEN = ("recipe", "trainer")
"""Groups a newcomer need not choose from: recipes follow from model and data set."""


SENTENCE = re.compile(r"(?<=\.)\s+(?=[A-Z])")
"""Where one ends and another begins."""


def choices(folder: Path) -> dict[str, list[str]]:
    """The names each configuration group offers, "sub/name" for nested ones, sorted."""
    groups: dict[str, list[str]] = {}
    for group in sorted(path for path in folder.iterdir() if path.is_dir()):
        names = [str(file.relative_to(group).with_suffix("")) for file in group.rglob("*.yaml")]
        # A folder beside a file of its name holds that choice's own parts (sampler/ddpm/digits.yaml).
        groups[group.name] = sorted(
            name for name in names if not any((group / f"{p}.yaml").is_file() for p in Path(name).parents)
        )
    return {group: names for group, names in groups.items() if names}


def described(folder: Path, group: str) -> dict[str, str]:
    """The choices of a group, each with the first sentence of its file's comment."""
    return {name: _sentence(folder / group / f"{name}.yaml") for name in choices(folder)[group]}


def _sentence(file: Path) -> str:
    lines = file.read_text(encoding="utf-8").splitlines()
    said = takewhile(lambda line: line.startswith("#"), lines)
    words = " ".join(line.lstrip("# ") for line in said if "@package" not in line)
    return SENTENCE.split(words)[0]


def text(folder: Path, tasks: tuple[str, ...]) -> str:
    """The whole of --help for the configuration in `folder`."""
    groups = {"task": list(tasks), **choices(folder)}
    order = [name for name in HEADINGS if name in groups]
    order += [name for name in groups if name not in HEADINGS and name not in HIDDEN]
    lines = []
    for name in order:
        title = f"{name}=" + (f"  ({HEADINGS[name]})" if name in HEADINGS else "")
        wrapped = textwrap.wrap("  ".join(groups[name]), 92, break_on_hyphens=False)
        lines.append("\n".join([f"  {title}", *(f"      {line}" for line in wrapped)]))
    return f"{USAGE}\nChoices\n" + "\n".join(lines) + f"\n\n{SETTINGS}"
