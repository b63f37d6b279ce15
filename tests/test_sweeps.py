"""The committed W&B sweeps compose as they stand, typed as W&B's agent types them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from genbench.harness.tracking.direction import direction_of
from genbench.validation import SETTINGS

SWEEPS = sorted((Path(__file__).parent.parent / "sweeps").glob("*.yaml"))


def ends(parameter: dict[str, Any]) -> list[Any]:
    """The values, or the least and the largest, that W&B may choose."""
    return parameter.get("values") or [parameter[end] for end in ("value", "min", "max") if end in parameter]


def typed(sweep: dict[str, Any], values: dict[str, Any]) -> list[str]:
    """What the agent starts with these values, made by W&B's own code."""
    utils = pytest.importorskip("wandb.sdk.launch.sweeps.utils")
    command = utils.create_sweep_command(list(sweep["command"]))
    made = utils.create_sweep_command_args({"args": {key: {"value": v} for key, v in values.items()}})
    made["env"] = ["/usr/bin/env"]
    filled: list[str] = []
    for part in command:
        macro = part.startswith("${") and part.endswith("}")
        filled += made[part[2:-1]] if macro else [str(part)]
    return filled


def test_there_is_one() -> None:
    assert [path.name for path in SWEEPS] == ["digits-ddpm.yaml"]


@pytest.mark.parametrize("path", SWEEPS, ids=lambda path: path.stem)
def test_every_value_composes(
    path: Path, compose: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_RUN_ID", "abc123")
    sweep = yaml.safe_load(path.read_text())
    parameters = sweep["parameters"]
    for place in range(max(len(ends(parameter)) for parameter in parameters.values())):
        values = {key: ends(each)[min(place, len(ends(each)) - 1)] for key, each in parameters.items()}
        command = typed(sweep, values)
        assert command[:4] == ["/usr/bin/env", "python", "-m", "genbench"]
        config = compose(*command[4:])
        assert config["run_dir"] == "runs/sweeps/abc123"
        for key, value in values.items():
            found: Any = config
            for part in key.split("."):
                found = found.get(part, {}) if isinstance(found, dict) else {}
            if key in SETTINGS:
                assert found == value


@pytest.mark.parametrize("path", SWEEPS, ids=lambda path: path.stem)
def test_what_is_optimised_is_logged_and_in_its_direction(
    path: Path, compose: Callable[..., dict[str, Any]]
) -> None:
    sweep = yaml.safe_load(path.read_text())
    metric, config = sweep["metric"], compose("model=ddpm", "dataset=digits")
    extractors = config["metrics"]["extractors"]
    assert metric["name"] in {f"eval/fd_{name}" for name in extractors}
    assert {"min": "minimize", "max": "maximize"}[str(direction_of(metric["name"]))] == metric["goal"]
    # No parameter takes the place of a whole section, which W&B would then not let the run say.
    assert not {key for key in sweep["parameters"] if isinstance(config.get(key), dict)}
