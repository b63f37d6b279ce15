"""task=speed: how fast the suite's parts are beside other suites', in one interleaved run on this machine.

The machine's two ceilings come first; then the parts of speed.parts, each contestant taking its turn in every
round. Sizes are those of speed.cpu or speed.cuda. Peers take part where they are installed (the `peers`
extra); further networks are named: speed.peers=[module:function].

Writes speed.json, a table of paired ratios speed.md (other / ours; above 1, ours is the faster) and a
roofline speed.png to run_dir, or to runs/speed.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from genbench.cli import Typed
from genbench.contracts import UserError
from genbench.harness.distributed import refuse_ranks, resolve_device
from genbench.harness.durable import replace_file
from genbench.harness.recording import provenance
from genbench.speed import ceilings, metrics, operations, sampling, steps, training
from genbench.speed.bench import Bench
from genbench.speed.report import fractions, roofline, table
from genbench.speed.turns import Clock, Row

PARTS: Mapping[str, Callable[[Mapping[str, Any], Bench], Iterator[Row]]] = {
    "steps": steps.rows,
    "operations": operations.rows,
    "sampling": sampling.rows,
    "training": training.rows,
    "metrics": metrics.rows,
}
"""What can be timed; each takes the sizes of its name."""


def run(config: dict[str, Any], typed: Typed) -> None:
    """Times the parts asked for, and reports; the report is kept up to date while it is being made."""
    refuse_ranks("speed")
    device = resolve_device(config["device"])
    settings = config["speed"]
    if unknown := [part for part in settings["parts"] if part not in PARTS]:
        raise UserError(f"speed.parts names {', '.join(unknown)}; the parts are {', '.join(PARTS)}.")
    sizes = settings[device.type]
    clock = Clock(device, settings["rounds"] or sizes["rounds"], least=settings["least"])
    folder = Path(config["run_dir"] or "runs/speed")
    folder.mkdir(parents=True, exist_ok=True)
    command = [override for override in typed.overrides if not override.startswith("run_dir=")]
    facts = {**provenance(command, device), "rounds": clock.rounds, "sizes": sizes}

    found, rows = ceilings.measure(sizes["ceilings"], clock)
    compiled = sizes["compile"] if settings["compile"] is None else settings["compile"]
    bench = Bench(clock, compiled, settings["peers"])
    if device.type == "cpu":
        bench.leave_out("GPU: this machine's CPU was timed; type device=cuda where there is one")
    if not compiled:
        bench.leave_out(
            "compiled contestants: speed.compile=true brings them, at minutes of compiling on a CPU"
        )

    def write(best: ceilings.Ceilings) -> None:
        report = {
            **facts,
            "ceilings": asdict(best),
            "rows": [{**asdict(row), "of_ceiling": fractions(row, best)} for row in rows],
            "left_out": bench.left_out,
        }
        replace_file(folder / "speed.json", [f"{json.dumps(report, indent=2, allow_nan=False)}\n".encode()])

    for part in settings["parts"]:
        print(f"{part} ...", flush=True)
        rows += PARTS[part](sizes[part], bench)
        write(found)
    # A machine that was busy at first would have too low a ceiling.
    again, repeated = ceilings.measure(sizes["ceilings"], clock, "ceilings again")
    found, rows = found.best(again), rows + repeated
    write(found)
    heading = (
        f"On {facts['device']}; medians of {clock.rounds} interleaved rounds (p20 to p80).\n\n"
        f"Command: `{' '.join(facts['command'])}`"
    )
    shown = table(rows, found, heading, bench.left_out)
    (folder / "speed.md").write_text(shown, encoding="utf-8")
    picture = roofline(rows, found, facts["device"], folder / "speed.png")
    print(f"\n{shown}\nwritten to {folder / 'speed.json'}, drawn in {picture}")
