"""task=speed: how fast the suite's parts are beside other suites', in one interleaved run on this machine.

Writes <run_dir>/speed.json and prints one table of paired ratios (other / ours; above 1, ours is the faster).
Peers are timed where they are installed (the `peers` extra) or named: speed.peers=[module:function].
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from genbench.cli import Typed
from genbench.harness.distributed import refuse_ranks, resolve_device
from genbench.harness.recording import provenance
from genbench.speed.training_step import compare, imported_peer, installed_peers


def run(config: dict[str, Any], typed: Typed) -> None:
    """Times a training step of the small U-Net of `network=unet_small` against every peer at hand."""
    refuse_ranks("speed")
    device = resolve_device(config["device"])
    settings = config["speed"]
    peers = [*installed_peers(), *(imported_peer(path) for path in settings["peers"])]
    rows = compare(peers, batch_size=settings["batch_size"], rounds=settings["rounds"], device=str(device))
    folder = Path(config["run_dir"] or "runs/speed")
    folder.mkdir(parents=True, exist_ok=True)
    command = [override for override in typed.overrides if not override.startswith("run_dir=")]
    report = {**provenance(command, device), "training_step": rows}
    (folder / "speed.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    (folder / "speed.md").write_text(table(rows, report["device"]), encoding="utf-8")
    print(table(rows, report["device"]))
    if not peers:
        print("No other suite is installed; pip install 'genbench[peers]' brings two.")
    print(f"written to {folder / 'speed.json'}")


def table(rows: list[dict[str, Any]], device: str) -> str:
    """The rows as a Markdown table."""
    lines = [
        f"One training step, small U-Net, 32×32, batch {rows[0]['batch_size']}, on {device}; medians of "
        f"{rows[0]['rounds']} interleaved rounds (p20 to p80).",
        "",
        "| precision | network | parameters | ms | other / ours |",
        "|---|---|---|---|---|",
    ]
    for row in rows:
        ms, ratio = row["milliseconds"], row.get("ratio")
        shown = "" if ratio is None else f"{ratio['median']:.2f} ({ratio['p20']:.2f} to {ratio['p80']:.2f})"
        lines.append(
            f"| {row['precision']} | {row['name']} | {row['parameters'] / 1e6:.2f} M "
            f"| {ms['median']:.0f} ({ms['p20']:.0f} to {ms['p80']:.0f}) | {shown} |"
        )
    return "\n".join(lines) + "\n"
