"""task=speed from the command line, at sizes that take a moment."""

from __future__ import annotations

import json

import yaml
from command_line import genbench

from genbench.configuration import conf_dir
from genbench.tasks.speed import PARTS

SMALL = [
    "device=cpu",
    "speed.rounds=2",
    "speed.cpu.ceilings.copy_bytes=4096",
    "speed.cpu.ceilings.product=8",
    "speed.cpu.operations.draws=[1]",
    "speed.cpu.operations.blurs=[2]",
    "speed.cpu.operations.levels=4",
]


def test_parts_are_timed_and_reported(tmp_path):
    said = genbench("task=speed", f"run_dir={tmp_path}", "speed.parts=[operations]", *SMALL).stdout
    report = json.loads((tmp_path / "speed.json").read_text())
    assert {row["part"] for row in report["rows"]} == {"ceilings", "operations", "ceilings again"}
    assert report["ceilings"]["copy"] > 0
    assert set(report["ceilings"]["product"]) == {"fp32", "bf16"}
    assert report["rounds"] == 2
    assert any("GPU" in line for line in report["left_out"]), "that no GPU was timed is said"
    assert any("speed.compile=true" in line for line in report["left_out"])
    assert not any("run_dir" in word for word in report["command"])
    shown = (tmp_path / "speed.md").read_text()
    assert shown in said
    assert "| operations: blur of (2, 3, 32, 32) | genbench |" in shown
    assert (tmp_path / "speed.png").is_file()


def test_an_unknown_part_is_refused_with_those_there_are(tmp_path):
    refused = genbench("task=speed", f"run_dir={tmp_path}", "speed.parts=[steps,networks]", check=False)
    assert refused.returncode != 0
    assert "speed.parts names networks; the parts are steps, operations" in refused.stderr
    assert not list(tmp_path.iterdir())


def test_every_part_has_its_sizes_on_every_device():
    settings = yaml.safe_load((conf_dir() / "speed.yaml").read_text())
    assert settings["parts"] == list(PARTS)
    for device in ("cpu", "cuda"):
        assert set(settings[device]) == {"rounds", "compile", "ceilings", *PARTS}
    for part in PARTS:
        assert set(settings["cpu"][part]) == set(settings["cuda"][part])
